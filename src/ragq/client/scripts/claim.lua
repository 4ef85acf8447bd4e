-- Take jobs: out of the list, attempt + 1, lease and status in one step.
-- ARGV: prefix, worker's name, lease ms, jobs in flight there, then lane, most jobs, … by priority.
-- Returns {drain, job, …}; drain = 1 asks the worker to run empty because a job must run alone.
-- A job is {id, attempt, data, name, tenant, ms to its deadline, tries, deaths alone, ms waited, alone}.
local worker, lease_ms, in_flight = ARGV[2], ARGV[3], tonumber(ARGV[4])
local answer = {0}
if redis.call('EXISTS', P .. ':suspended') == 1 then return answer end

local function start(id, name, alone)
    local key = job_key(id)
    local job = redis.pcall('HMGET', key, 'status', 'data', 'origin', 'tenant', 'deadline_ms', 'tries', 'deaths_alone',
        'created_ms', 'ticket', 'ended_ms')
    if job.err or job[1] ~= 'queued' then return end  -- canceled, deleted or not a job: the list entry is stale
    if job[10] then  -- put back by `rq requeue` after its end: it gets its whole time again
        job[5] = now + job[5] - job[8]
        redis.call('HDEL', key, 'ended_ms', 'tries', 'deaths', 'deaths_alone', 'error')
        redis.call('PERSIST', key)
        redis.call('HSET', key, 'deadline_ms', job[5], 'created_ms', now)
        job[6], job[7], job[8] = 0, 0, now
    end
    local attempt = redis.call('HINCRBY', key, 'attempt', 1)
    redis.call('HSET', key, 'status', 'started', 'started_at', iso(now), 'last_heartbeat', iso(now),
        'worker_name', worker, 'alone', alone)
    redis.call('ZADD', P .. ':leases', now + lease_ms, id)
    redis.call('ZADD', P .. ':wip:' .. job[3], 'inf', id .. ':' .. attempt)
    if job[9] then redis.call('HSET', P .. ':served', job[3], job[9]) end
    answer[#answer + 1] = {id, attempt, job[2] or '', job[3], job[4] or '', (job[5] or now) - now, tonumber(job[6] or 0),
        tonumber(job[7] or 0), now - (job[8] or now), alone}
    return true
end

-- The next job of a lane: one from the name whose turn it is, which then goes to the end of the ring.
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

-- A suspect (see reap.lua) runs alone. An idle worker takes it and nothing else; a busy one runs
-- empty first, one worker at a time.
for i = 5, #ARGV, 2 do
    local solo = ARGV[i]:match('^[^.]*') .. '.solo'
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
end
return answer
