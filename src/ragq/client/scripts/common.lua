-- Prepended to every script. ARGV[1] is the key prefix.
--
-- Keys (P = prefix; those that stock RQ knows are marked *)
--   P:job:ID *        hash, one job            P:queue:NAME *   list of queued ids
--   P:results:ID *    stream of results        P:queues *       set of the keys of all lists
--   P:events:ID       stream of the events that a streamed job has logged
--   P:wip:NAME *      started "ID:ATTEMPT"     P:ring:LANE      names with queued jobs -> time of their next turn
--   P:turns:POOL      tenant -> time of its next turn, and "@now" -> the pool's time: see "Turns" below
--   P:shares          tenant -> "weight:most running jobs of a queue, or 0", where they are not 1 and 0
--   P:finished|failed|canceled|scheduled:NAME *                 P:leases  id -> expiry, ms
--   P:delayed         id -> due time, ms       P:served         name -> last ticket claimed
--   P:deadlines       id -> deadline, ms       P:capacity       queue -> most jobs its live workers can hold
--   P:unarchived      id -> end, ms            P:service:LANE   hash: mean_ms of a run, jobs counted
--   P:refused:NAME    hash: refused jobs expected back (a decaying count), and when it was updated, ms
--   P:recent:PRINT    id of the job that a payload created recently
--   P:bytes           hash: id -> "bytes:NAME" of a large unended job, in Valkey and the blob store
--   P:paused          queues of which no worker claims jobs
--   P:closed          tenant -> until when its jobs are refused, ms
--   P:queued_bytes    hash: NAME -> the sum of these
--
-- A NAME is "queue[.lane][@tenant]", a LANE its part before the "@", a QUEUE its part before the ".". A POOL is the
-- first of the lanes that share the slots of workers.
local P = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function job_key(id) return P .. ':job:' .. id end
local function list_key(name) return P .. ':queue:' .. name end
local function lane_of(name) return name:match('^[^@]*') end
local function queue_of(name) return name:match('^[^.@]*') end
local function suffix_of(name) return name:match('@.*$') or '' end
local function tenant_of(name) return name:match('@(.*)$') or 'default' end
local LANES = {'.priority', '', '.flex'}  -- of a queue, in the order in which they are claimed

-- Small documents, in `documents.priority`, have slots of their own, as suspects have.
local function pool_of(lane)
    if lane == 'queries.priority' or lane == 'queries.flex' then return 'queries' end
    return lane == 'documents.flex' and 'documents' or lane
end

-- The lanes of a pool, in the order in which they are claimed.
local function lanes_of(pool)
    if pool == 'queries' then return {'queries.priority', 'queries', 'queries.flex'} end
    return pool == 'documents' and {'documents', 'documents.flex'} or {pool}
end

-- Fields of a job; empty if its key does not hold a hash.
local function read(id, ...)
    local job = redis.pcall('HMGET', job_key(id), ...)
    return job.err and {} or job
end

local function number(text, default) return tonumber(text or nil) or default end

-- A count or time from a job's hash, or the default if another program wrote something else there.
local function whole(text, default)
    local digits = (text or ''):match('^%d+$')
    return digits and #digits < 16 and tonumber(digits) or default
end

-- Milliseconds since 1970 as the text RQ stores, e.g. 2026-01-31T23:59:59.123000Z.
local function iso(ms)
    local seconds = math.floor(ms / 1000)
    local z = math.floor(seconds / 86400) + 719468
    local era = math.floor(z / 146097)
    local doe = z - era * 146097
    local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
    local mp = math.floor((5 * doy + 2) / 153)
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + era * 400 + (month <= 2 and 1 or 0)
    local second = seconds % 86400
    return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03d000Z', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
        math.floor(second / 3600), math.floor(second / 60) % 60, second % 60, ms % 1000)
end

-- Turns: each claim of a job while other tenants wait moves its tenant's next turn in the pool on by TURN / weight, and
-- the earliest turn is claimed first. The pool's time is the earliest turn of those who wait, and goes on with the claims of one
-- who waits alone. Whoever begins to wait does so then, or at the end of its own last turn, so that nobody saves up turns. The
-- times are whole numbers, so that sums are exact.
local TURN = 10000

local shares  -- false when all tenants have equal ones

-- What an operator set for a tenant: the time that a turn takes it, and the most of its jobs of a queue that may run, or 0.
local function share_of(tenant)
    if shares == nil then shares = redis.call('EXISTS', P .. ':shares') == 1 and {} end
    if not shares then return TURN, 0 end
    local share = shares[tenant]
    if not share then
        local weight, most = (redis.call('HGET', P .. ':shares', tenant) or ''):match('^([%d.]+):(%d+)$')
        share = {math.floor(TURN / number(weight, 1) + 0.5), number(most, 0)}
        shares[tenant] = share
    end
    return share[1], share[2]
end

-- The time of a pool, and the time of a tenant's next turn there if it begins to wait now.
local function times_of(pool, tenant)
    local times = redis.call('ZMSCORE', P .. ':turns:' .. pool, '@now', tenant)
    local time = number(times[1], 0)
    return time, math.max(time, number(times[2], 0))
end

-- Add a name to its lane's ring; a name that is there keeps its place.
local function join_ring(name)
    local _, turn = times_of(pool_of(lane_of(name)), tenant_of(name))
    redis.call('ZADD', P .. ':ring:' .. lane_of(name), 'NX', turn, name)
end

-- Let a tenant's lists of a queue take turns again, which it left when it was full.
local function rejoin(queue, suffix)
    for _, lane in ipairs({'.priority', '', '.flex', '.solo'}) do
        local name = queue .. lane .. suffix
        if redis.call('LLEN', list_key(name)) > 0 then
            join_ring(name)
            redis.call('PUBLISH', P .. ':wake', queue .. lane)
        end
    end
end

-- Put a queued job into a list, at the front ('LPUSH') or the back ('RPUSH'), and wake the workers. A list that has jobs
-- already is known, and in its ring if its tenant is not full.
local function put(command, name, id)
    if redis.call(command, list_key(name), id) == 1 then
        redis.call('SADD', P .. ':queues', list_key(name))
        join_ring(name)
    end
    redis.call('PUBLISH', P .. ':wake', lane_of(name))
end

-- Put a job that is there already into a list.
local function push(command, name, id)
    redis.call('HSET', job_key(id), 'status', 'queued', 'waiting_in', name)
    put(command, name, id)
end

-- Stop counting an ended job, and its bytes. Idempotent.
local function free(id)
    for scope in (read(id, 'open_in')[1] or ''):gmatch('%S+') do redis.call('ZREM', P .. ':limit:open:' .. scope, id) end
    local bytes, name = (redis.call('HGET', P .. ':bytes', id) or ''):match('^(%d+):(.*)$')
    if not bytes then return end
    redis.call('HDEL', P .. ':bytes', id)
    if redis.call('HINCRBY', P .. ':queued_bytes', name, '-' .. bytes) == 0 then
        redis.call('HDEL', P .. ':queued_bytes', name)
    end
end

-- End a job's lease, which gives its tenant a place again.
local function unlease(id, name, attempt)
    redis.call('ZREM', P .. ':leases', id)
    redis.call('ZREM', P .. ':wip:' .. name, id .. ':' .. attempt)
    local _, most = share_of(tenant_of(name))
    if most > 0 then rejoin(queue_of(name), suffix_of(name)) end
end

-- Whether this attempt still owns the job. A job that was put back but not claimed since is removed from its
-- list again, and the attempt goes on; but not one that had ended and was queued again, here or by `rq requeue`.
local function owns(id, attempt)
    local job = read(id, 'attempt', 'status', 'waiting_in', 'origin', 'ended_attempt', 'ended_ms')
    if job[1] ~= attempt or not job[4] then return false, job[2], job[4] end
    if job[2] == 'queued' then
        if job[5] == attempt or job[6] then return false, job[2], job[4] end
        redis.call('LREM', list_key(job[3] or job[4]), 1, id)
        redis.call('HSET', job_key(id), 'status', 'started')
        redis.call('ZADD', P .. ':wip:' .. job[4], 'inf', id .. ':' .. attempt)
        return true, 'started', job[4]
    end
    return job[2] == 'started', job[2], job[4]
end

-- Write a final state. A job to be archived is kept until it is; any other expires after its own ttl or the given one.
local function finish(id, name, status, ttl)
    local key, results = job_key(id), P .. ':results:' .. id
    ttl = whole(redis.call('HGET', key, 'result_ttl') or nil, ttl)
    redis.call('HSET', key, 'status', status, 'ended_at', iso(now), 'ended_ms', now)
    redis.call('ZREM', P .. ':deadlines', id)
    free(id)
    redis.call('EXPIRE', P .. ':events:' .. id, ttl)
    if redis.call('HGET', key, 'archive') == '1' then
        redis.call('PERSIST', key)
        redis.call('PERSIST', results)
        redis.call('ZADD', P .. ':unarchived', now, id)
    else
        redis.call('EXPIRE', key, ttl)
        redis.call('EXPIRE', results, ttl)
    end
    redis.call('ZADD', P .. ':' .. (status == 'stopped' and 'canceled' or status) .. ':' .. name, math.floor(now / 1000) + ttl, id)
    redis.call('PUBLISH', P .. ':done', id)
end

-- Put due delayed jobs at the back of their lists; returns how many.
local function wake_due()
    local due = redis.call('ZRANGEBYSCORE', P .. ':delayed', '-inf', now, 'LIMIT', 0, 1000)
    for _, id in ipairs(due) do
        redis.call('ZREM', P .. ':delayed', id)
        local job = read(id, 'status', 'origin')
        if job[1] == 'scheduled' and job[2] then
            redis.call('ZREM', P .. ':scheduled:' .. job[2], id)
            redis.call('HSET', job_key(id), 'ticket', redis.call('HINCRBY', P .. ':tickets', job[2], 1))
            push('RPUSH', job[2], id)
        end
    end
    return #due
end
