-- Put jobs whose worker is silent back into their lists, and delayed jobs that are due.
-- Every worker calls this every second; it does the work once a second in all.
-- ARGV: prefix, lease ms, deaths alone before quarantine.
-- Returns {ids put back after a death, number of delayed jobs put back}.
local lease_ms, quarantine_deaths = tonumber(ARGV[2]), tonumber(ARGV[3])
local last = tonumber(redis.call('GET', P .. ':reaped') or 0)
if now - last < 900 and now >= last then return {{}, 0} end
redis.call('SET', P .. ':reaped', now)

-- Nobody could heartbeat while Valkey was away, or no one watched: give every lease its time anew.
if now - last > math.max(lease_ms / 2, 3000) or now < last then
    for _, id in ipairs(redis.call('ZRANGE', P .. ':leases', 0, -1)) do
        redis.call('ZADD', P .. ':leases', now + lease_ms, id)
    end
end

-- Who died with a job is charged a death. After two the job is a suspect: it waits in the solo lane,
-- so that it cannot take neighbours with it. One that has died alone often enough goes back to its
-- own list, where the next claim ends it.
local dead = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', now, 'LIMIT', 0, 1000)) do
    local key = job_key(id)
    local job = redis.call('HMGET', key, 'status', 'origin', 'attempt', 'alone')
    if job[1] == 'started' then
        unlease(id, job[2], job[3])
        local deaths = redis.call('HINCRBY', key, 'deaths', 1)
        local alone = redis.call('HINCRBY', key, 'deaths_alone', job[4] == '1' and 1 or 0)
        local name = job[2]
        if deaths >= 2 and alone < quarantine_deaths then
            name = name:match('^[^.@]*') .. '.solo' .. (name:match('@.*$') or '')
        end
        push('LPUSH', name, id)
        dead[#dead + 1] = id
    else
        redis.call('ZREM', P .. ':leases', id)
    end
end

local due = redis.call('ZRANGEBYSCORE', P .. ':delayed', '-inf', now, 'LIMIT', 0, 1000)
for _, id in ipairs(due) do
    redis.call('ZREM', P .. ':delayed', id)
    local job = redis.call('HMGET', job_key(id), 'status', 'origin')
    if job[1] == 'scheduled' then
        redis.call('ZREM', P .. ':scheduled:' .. job[2], id)
        push('RPUSH', job[2], id)
    end
end

-- A dashboard that requeues a job pushes it to its list only: see to it that the list has its turn.
if math.floor(now / 10000) ~= math.floor(last / 10000) then
    for _, key in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
        if redis.call('LLEN', key) > 0 then join_ring(key:sub(#list_key('') + 1)) end
    end
end
return {dead, #due}
