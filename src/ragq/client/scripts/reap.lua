-- Put jobs whose lease expired back into their lists, wake due delayed jobs, and fail queued ones past their deadline.
-- Every process calls this every second; the work is done once a second in total.
-- ARGV: prefix, lease ms, deaths alone before quarantine, ttl seconds, error and result value of a missed deadline.
-- Returns {ids put back after a death, number of delayed jobs put back, ids past their deadline}.
local lease_ms, quarantine_deaths, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last = tonumber(redis.call('GET', P .. ':reaped') or 0)
if now - last < 900 and now >= last then return {{}, 0, {}} end
redis.call('SET', P .. ':reaped', now)

-- Valkey was down, or no process reaped. A live worker needs a moment to renew its leases, so a lease that expired
-- meanwhile is extended, but by no more than it had left before the gap; a live worker's had much left.
local gap = now - last
if gap > math.max(lease_ms / 4, 2000) or gap < 0 then
    local leases = redis.call('ZRANGE', P .. ':leases', 0, -1, 'WITHSCORES')
    for i = 1, #leases, 2 do
        local known = last > 0 and gap > 0
        local had = known and leases[i + 1] - last or lease_ms
        local left = known and leases[i + 1] - now or lease_ms
        redis.call('ZADD', P .. ':leases', now + math.max(left, math.min(had, lease_ms / 4)), leases[i])
    end
end

-- A job whose worker died is charged a death. After two it is a suspect: it waits in the solo lane, so that it cannot
-- take other jobs down with it. After enough deaths alone it goes back to its own list; it is claimed once
-- more, and the worker ends it as quarantined without running it.
local dead = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':leases', '-inf', now, 'LIMIT', 0, 1000)) do
    local job = read(id, 'status', 'origin', 'attempt', 'alone', 'deaths', 'deaths_alone')
    local name = job[2]
    if job[1] == 'started' and name then
        unlease(id, name, job[3])
        local deaths, alone = whole(job[5], 0) + 1, whole(job[6], 0) + (job[4] == '1' and 1 or 0)
        redis.call('HSET', job_key(id), 'deaths', deaths, 'deaths_alone', alone)
        if deaths >= 2 and alone < quarantine_deaths then
            name = queue_of(name) .. '.solo' .. (name:match('@.*$') or '')
        end
        push('LPUSH', name, id)
        dead[#dead + 1] = id
    else
        redis.call('ZREM', P .. ':leases', id)
    end
end

local delayed = wake_due()

-- A job in flight is ended by its worker; if the worker is dead, the job is checked here again after a lease.
local late = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':deadlines', '-inf', now, 'LIMIT', 0, 1000)) do
    local job = read(id, 'status', 'origin', 'waiting_in')
    local name = job[2] or job[3] or ''
    if job[1] == 'queued' or job[1] == 'scheduled' then
        if job[1] == 'queued' then redis.call('LREM', list_key(job[3] or name), 1, id) end
        redis.call('ZREM', P .. ':delayed', id)
        redis.call('ZREM', P .. ':scheduled:' .. name, id)
        redis.call('HSET', job_key(id), 'error', ARGV[5])
        redis.call('XADD', P .. ':results:' .. id, 'MAXLEN', 10, '*', 'type', 2, 'exc_string', ARGV[6])
        finish(id, name, 'failed', ttl)
        late[#late + 1] = id
    elseif job[1] == 'started' then
        redis.call('ZADD', P .. ':deadlines', now + lease_ms, id)
    else
        redis.call('ZREM', P .. ':deadlines', id)
        free(id)  -- one of RQ's tools has ended or removed the job
    end
end

-- Sum the slots of the live workers, and remove those that are gone.
local capacity = {}
for _, key in ipairs(redis.call('SMEMBERS', P .. ':workers')) do
    local worker = redis.call('HMGET', key, 'slots', 'queues')
    if worker[1] then
        for queue, slots in worker[1]:gmatch('(%w+)=(%d+)') do capacity[queue] = (capacity[queue] or 0) + slots end
    elseif redis.call('EXISTS', key) == 0 then
        redis.call('SREM', P .. ':workers', key)
    end
end
redis.call('DEL', P .. ':capacity')
for queue, slots in pairs(capacity) do redis.call('HSET', P .. ':capacity', queue, slots) end

-- Dashboards requeue a job by pushing it to its list only, so every 10 s add lists with jobs to their ring. A job that
-- one of RQ's tools ended while it ran must not hold a place of a tenant for ever.
if math.floor(now / 10000) ~= math.floor(last / 10000) then
    for _, key in ipairs(redis.call('SMEMBERS', P .. ':queues')) do
        local name = key:sub(#list_key('') + 1)
        local _, most = share_of(tenant_of(name))
        if most > 0 then
            for _, entry in ipairs(redis.call('ZRANGE', P .. ':wip:' .. name, 0, -1)) do
                local id, attempt = entry:match('^(.*):(.-)$')
                local job = read(id or '', 'status', 'attempt')
                if job[1] ~= 'started' or job[2] ~= attempt then redis.call('ZREM', P .. ':wip:' .. name, entry) end
            end
        end
        if redis.call('LLEN', key) > 0 then join_ring(name) end
        local pool = pool_of(lane_of(name))
        redis.call('ZREMRANGEBYSCORE', P .. ':turns:' .. pool, '-inf', string.format('(%.0f', times_of(pool, '')))
        for _, state in ipairs({'finished', 'failed', 'canceled'}) do
            redis.call('ZREMRANGEBYSCORE', P .. ':' .. state .. ':' .. name, '-inf', math.floor(now / 1000))
        end
        for _, worker in ipairs(redis.call('SMEMBERS', P .. ':workers:' .. name)) do
            if redis.call('EXISTS', worker) == 0 then redis.call('SREM', P .. ':workers:' .. name, worker) end
        end
    end
end
return {dead, delayed, late}
