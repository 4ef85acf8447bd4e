-- Claim jobs: remove from the list, attempt + 1, lease and status in one step.
-- ARGV: prefix, worker's name, lease ms, jobs in flight there, then lane, most jobs, … by priority.
-- Returns {drain, more, job, …}; drain = 1: finish the jobs in flight and claim no others, because a suspect must run
-- alone; more = 1: more jobs wait.
-- A job is {id, attempt, data, name, tenant, ms to its deadline, tries, deaths alone, ms waited, alone}.
local worker, lease_ms, in_flight = ARGV[2], ARGV[3], tonumber(ARGV[4])
local answer = {0, 0}
if redis.call('EXISTS', P .. ':suspended') == 1 then return answer end
wake_due()

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
        'ticket', 'ended_ms', 'attempt')
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
        now - created, alone}
    return true
end

-- The next job of a lane, from the list at the front of its ring; that list then moves to the end.
local function take(lane, alone)
    local ring = P .. ':ring:' .. lane
    while true do
        local first = redis.call('ZPOPMIN', ring)
        local name = first[1]
        if not name then return false end
        local id = redis.call('LPOP', list_key(name))
        if redis.call('LLEN', list_key(name)) > 0 then join_ring(name) end
        if id and start(id, name, alone) then return true end
    end
end

-- A suspect (see reap.lua) runs alone. An idle worker claims it and nothing else; a busy one finishes its jobs
-- first, one worker at a time.
for i = 5, #ARGV, 2 do
    local solo = queue_of(ARGV[i]) .. '.solo'
    if redis.call('EXISTS', P .. ':ring:' .. solo) == 1 then
        if in_flight == 0 then
            redis.call('DEL', P .. ':drain:' .. solo)
            if take(solo, 1) then return answer end
        else
            local drain = P .. ':drain:' .. solo
            if redis.call('SET', drain, worker, 'NX', 'PX', 30000) or redis.call('GET', drain) == worker then
                redis.call('PEXPIRE', drain, 30000)
                answer[1] = 1
                return answer
            end
        end
    end
end
for i = 5, #ARGV, 2 do
    for _ = 1, tonumber(ARGV[i + 1]) do
        if not take(ARGV[i], 0) then break end
    end
    if redis.call('EXISTS', P .. ':ring:' .. ARGV[i]) == 1 then answer[2] = 1 end
end
return answer
