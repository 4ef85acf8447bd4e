-- Prepended to every script. ARGV[1] is the key prefix.
--
-- Keys (P = prefix; those that stock RQ knows are marked *)
--   P:job:ID *        hash, one job            P:queue:NAME *   list of queued ids
--   P:results:ID *    stream of results        P:queues *       set of the keys of all lists
--   P:events:ID       stream of the events that a streamed job has logged
--   P:wip:NAME *      started "ID:ATTEMPT"     P:ring:LANE      names with queued jobs, next first
--   P:finished|failed|canceled|scheduled:NAME *                 P:leases  id -> expiry, ms
--   P:delayed         id -> due time, ms       P:served         name -> last ticket claimed
--   P:deadlines       id -> deadline, ms       P:capacity       queue -> most jobs its live workers can hold
--   P:unarchived      id -> end, ms            P:service:LANE   hash: mean_ms of a run, jobs counted
--   P:refused:LANE    hash: refused jobs expected back (a decaying count), and when it was updated, ms
--   P:recent:PRINT    id of the job that a payload created recently
--   P:bytes           hash: id -> "bytes:LANE" of a large unended job, in Valkey and the blob store
--   P:closed          tenant -> until when its jobs are refused, ms
--   P:queued_bytes    hash: LANE -> the sum of these
--
-- A NAME is "queue[.lane][@tenant]", a LANE its part before the "@", a QUEUE its part before the ".".
local P = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function job_key(id) return P .. ':job:' .. id end
local function list_key(name) return P .. ':queue:' .. name end
local function lane_of(name) return name:match('^[^@]*') end
local function queue_of(name) return name:match('^[^.@]*') end
local LANES = {'.priority', '', '.flex'}  -- of a queue, in the order in which they are claimed

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

-- Add a name to its lane's ring; a name that is there keeps its place.
local function join_ring(name)
    redis.call('ZADD', P .. ':ring:' .. lane_of(name), 'NX', redis.call('INCR', P .. ':turn'), name)
end

-- Put a job into a list, at the front ('LPUSH') or the back ('RPUSH'), and wake the workers.
local function push(command, name, id)
    redis.call('SADD', P .. ':queues', list_key(name))
    redis.call(command, list_key(name), id)
    redis.call('HSET', job_key(id), 'status', 'queued', 'waiting_in', name)
    join_ring(name)
    redis.call('PUBLISH', P .. ':wake', lane_of(name))
end

-- Stop counting the bytes of an ended job. Idempotent.
local function free(id)
    local bytes, lane = (redis.call('HGET', P .. ':bytes', id) or ''):match('^(%d+):(.*)$')
    if not bytes then return end
    redis.call('HDEL', P .. ':bytes', id)
    redis.call('HINCRBY', P .. ':queued_bytes', lane, '-' .. bytes)
end

-- End a job's lease.
local function unlease(id, name, attempt)
    redis.call('ZREM', P .. ':leases', id)
    redis.call('ZREM', P .. ':wip:' .. name, id .. ':' .. attempt)
end

-- Whether this attempt still owns the job. A job that was put back but not claimed since is removed from its
-- list again, and the attempt goes on.
local function owns(id, attempt)
    local job = read(id, 'attempt', 'status', 'waiting_in', 'origin')
    if job[1] ~= attempt or not job[4] then return false, job[2], job[4] end
    if job[2] == 'queued' then
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

-- Jobs that will be claimed before the one at a place (from 1) of its list: all in higher lanes, and in its own lane as
-- many of each other tenant as have their turn earlier. Returns their number and the ms until that place's turn, from
-- the mean run in each lane and the slots of the queue's workers; -1 where either is unknown.
local function ahead_of(name, place)
    local slots = number(redis.call('HGET', P .. ':capacity', queue_of(name)), 0)
    local jobs, wait = 0, slots > 0 and 0 or -1
    for _, suffix in ipairs(LANES) do
        local lane = queue_of(name) .. suffix
        local is_own = lane == lane_of(name)
        local in_lane = is_own and place - 1 or 0
        for _, other in ipairs(redis.call('ZRANGE', P .. ':ring:' .. lane, 0, -1)) do
            if other ~= name then
                local length = redis.call('LLEN', list_key(other))
                in_lane = in_lane + (is_own and math.min(length, place) or length)
            end
        end
        local mean = number(redis.call('HGET', P .. ':service:' .. lane, 'mean_ms'), -1)
        jobs = jobs + in_lane
        if in_lane > 0 and wait >= 0 then wait = mean < 0 and -1 or wait + in_lane * mean / slots end
        if is_own then return jobs, wait, mean, slots end
    end
    return jobs, wait, -1, slots
end
