-- Claim jobs: remove from the list, attempt + 1, lease and status in one step.
-- ARGV: prefix, worker's name, lease ms, jobs in flight there, then lane, most jobs, … by queue and priority. A job takes a place
-- of its own lane, and of those lanes of its pool that have as much room or more. A lane of documents with 0 is full but for a
-- newcomer (see below), one with -1 is full.
-- Returns {drain, more, job, …}; drain = 1: finish the jobs in flight and claim no others, because a suspect must run
-- alone; more = 1: more jobs wait.
-- A job is {id, attempt, data, name, tenant, ms to its deadline, tries, deaths alone, ms waited, alone, traceparent}.
local worker, lease_ms, in_flight = ARGV[2], ARGV[3], tonumber(ARGV[4])
local answer = {0, 0}
if redis.call('EXISTS', P .. ':suspended') == 1 then return answer end
wake_due()
local paused = {}
for _, queue in ipairs(redis.call('SMEMBERS', P .. ':paused')) do paused[queue] = true end

-- An ended job in a list was put there by `rq requeue`: it gets its whole time again.
local function renew(id, key, deadline, created)
    redis.call('HDEL', key, 'ended_ms', 'tries', 'deaths', 'deaths_alone', 'error')
    redis.call('PERSIST', key)
    redis.call('DEL', P .. ':events:' .. id)
    redis.call('ZREM', P .. ':unarchived', id)
    redis.call('HSET', key, 'deadline_ms', now + deadline - created, 'created_ms', now)
    redis.call('ZADD', P .. ':deadlines', now + deadline - created, id)
    return now + deadline - created, now
end

local function start(id, list, alone)
    local key = job_key(id)
    local job = read(id, 'status', 'data', 'origin', 'tenant', 'deadline_ms', 'tries', 'deaths_alone', 'created_ms',
        'ticket', 'ended_ms', 'attempt', 'traceparent')
    if job[1] ~= 'queued' then return end  -- canceled, deleted or not a job: the list entry is stale
    local name = queue_of(job[3] or '') == queue_of(list) and job[3] or list
    local tries, deaths_alone, attempt = whole(job[6], 0), whole(job[7], 0), whole(job[11], 0) + 1
    local deadline, created = whole(job[5], now), whole(job[8], now)
    if job[10] then
        deadline, created = renew(id, key, deadline, created)
        tries, deaths_alone = 0, 0
    end
    redis.call('HSET', key, 'status', 'started', 'started_at', iso(now), 'started_ms', now, 'last_heartbeat', iso(now),
        'worker_name', worker, 'alone', alone, 'attempt', attempt, 'origin', name)
    redis.call('ZADD', P .. ':leases', now + lease_ms, id)
    redis.call('ZADD', P .. ':wip:' .. name, 'inf', id .. ':' .. attempt)
    local ticket = whole(job[9], 0)
    if ticket > number(redis.call('HGET', P .. ':served', name), 0) then
        redis.call('HSET', P .. ':served', name, ticket)
    end
    answer[#answer + 1] = {id, attempt, job[2] or '', name, job[4] or '', deadline - now, tries, deaths_alone,
        now - created, alone, job[12] or ''}
    return true
end

local WAITED = 20 * TURN  -- that a tenant may be behind others that had free slots, where its own lanes had none

-- Whether as many of a tenant's jobs of a queue run as may.
local function is_full(name)
    local _, most = share_of(tenant_of(name))
    if most == 0 then return false end
    local running = 0
    for _, lane in ipairs(LANES) do
        running = running + redis.call('ZCARD', P .. ':wip:' .. queue_of(name) .. lane .. suffix_of(name))
    end
    return running >= most
end

local LOOKED_AT = 20  -- most tenants among whom a newcomer is looked for

-- Find a newcomer in a lane of documents: a tenant of which none runs in the pool and whose turn comes after at most one of
-- its own. So its page need not wait for a place, and yet it gets no more turns than its part. Returns its name and turn.
local function find_newcomer(lanes, n, time, earliest)
    local ring = redis.call('ZRANGE', P .. ':ring:' .. lanes[n], 0, LOOKED_AT - 1, 'WITHSCORES')
    for i = 1, #ring, 2 do
        local name, turn, running = ring[i], math.max(time, tonumber(ring[i + 1])), 0
        for _, lane in ipairs(lanes) do
            running = running + redis.call('ZCARD', P .. ':wip:' .. lane .. suffix_of(name))
        end
        if running == 0 and turn - earliest <= share_of(tenant_of(name)) then return name, turn end
    end
end

-- Claim jobs of a pool by turns while its lanes have room (a number for each lane); of one tenant, those of the highest
-- lane first. Returns the number of jobs. What is known of a lane is in arrays, since to fill a table by names is slow.
local function serve(pool, lanes, room, alone)
    local firsts, scores, seconds = {false, false, false}, {0, 0, 0}, {false, false, false}

    -- Note the first two names of a lane, and the turn of the first; false where nothing waits.
    local function look(n)
        local found = redis.call('ZRANGE', P .. ':ring:' .. lanes[n], 0, 1, 'WITHSCORES')
        firsts[n], scores[n], seconds[n] = found[1] or false, tonumber(found[2] or 0), found[3] or false
        return firsts[n]
    end

    local is_empty = true
    for n = 1, #lanes do
        if look(n) then is_empty = false end
    end
    if is_empty then return 0 end
    local begun = redis.call('ZSCORE', P .. ':turns:' .. pool, '@now')  -- false while no tenant has waited for another
    local time, turns, taken = number(begun, 0), nil, 0

    -- Whether other tenants wait in the pool.
    local function has_others(suffix)
        for n = 1, #lanes do
            if seconds[n] or (firsts[n] and firsts[n] ~= lanes[n] .. suffix) then return true end
        end
    end

    -- Move a tenant's turn on in all lanes in which it waits.
    local function move(tenant, suffix, turn)
        turns = turns or {}
        turns[tenant] = turn
        for n = 1, #lanes do
            if firsts[n] then
                redis.call('ZADD', P .. ':ring:' .. lanes[n], 'XX', turn, lanes[n] .. suffix)
                look(n)
            end
        end
    end

    -- Claim the next job of a list, of a tenant whose turn is then; the earliest of all was then.
    local function take(n, name, turn, earliest)
        local id = (alone == 1 or not is_full(name)) and redis.call('LPOP', list_key(name)) -- a worker was emptied for a suspect
        if not id or redis.call('LLEN', list_key(name)) == 0 then
            redis.call('ZREM', P .. ':ring:' .. lanes[n], name)
            look(n)
        end
        if not id or not start(id, name, alone) then return end
        taken = taken + 1
        local places = room[n]
        for other = 1, #lanes do
            if room[other] >= places then room[other] = room[other] - 1 end
        end
        local suffix = suffix_of(name)
        if has_others(suffix) then
            begun, time = true, math.max(time, earliest, turn - WAITED)
            move(tenant_of(name), suffix, turn + share_of(tenant_of(name)))
        elseif begun then  -- the pool's time goes on, so that nobody is behind for turns of long ago
            time = turn + share_of(tenant_of(name))
        end
    end

    local full, earliest = {}, nil
    for n = 1, #lanes do full[n] = room[n] == 0 and queue_of(pool) == 'documents' end
    while true do
        local best, turn
        earliest = nil
        for n = 1, #lanes do
            if firsts[n] then
                local its = math.max(time, scores[n])
                earliest = math.min(earliest or its, its)
                if room[n] > 0 and (not best or its < turn) then best, turn = n, its end
            end
        end
        if not best then break end
        take(best, firsts[best], turn, earliest)
    end
    for n = 1, #lanes do
        if full[n] and room[n] == 0 and firsts[n] then
            local name, turn = find_newcomer(lanes, n, time, earliest)
            if name then take(n, name, turn, earliest) end
        end
    end
    if turns or (begun and taken > 0) then
        local entries = {time, '@now'}
        for tenant, turn in pairs(turns or {}) do
            entries[#entries + 1], entries[#entries + 2] = turn, tenant
        end
        redis.call('ZADD', P .. ':turns:' .. pool, unpack(entries))
    end
    for n = 1, #lanes do
        if firsts[n] then answer[2] = 1 end
    end
    return taken
end

-- The room in each of these lanes, -1 where none is given.
local function room_of(lanes)
    local room = {-1, -1, -1}
    for i = 5, #ARGV, 2 do
        for n = 1, #lanes do
            if lanes[n] == ARGV[i] then room[n] = tonumber(ARGV[i + 1]) end
        end
    end
    return room
end

-- A suspect (see reap.lua) runs alone. An idle worker claims it and nothing else; a busy one finishes its jobs
-- first, one worker at a time.
local last
for i = 5, #ARGV, 2 do
    local solo = queue_of(ARGV[i]) .. '.solo'
    if solo ~= last and not paused[queue_of(ARGV[i])] and redis.call('EXISTS', P .. ':ring:' .. solo) == 1 then
        if in_flight == 0 then
            redis.call('DEL', P .. ':drain:' .. solo)
            if serve(solo, {solo}, {1}, 1) > 0 then return answer end
        else
            local drain = P .. ':drain:' .. solo
            if redis.call('SET', drain, worker, 'NX', 'PX', 30000) or redis.call('GET', drain) == worker then
                redis.call('PEXPIRE', drain, 30000)
                answer[1] = 1
                return answer
            end
        end
    end
    last = solo
end
for i = 5, #ARGV, 2 do
    local pool = pool_of(ARGV[i])
    if pool ~= last and not paused[queue_of(pool)] then
        local lanes = lanes_of(pool)
        serve(pool, lanes, room_of(lanes), 0)
    end
    last = pool
end
return answer
