-- Put jobs from a backup, whose hashes were written already, where their status says. Unended ones wait in their lists again.
-- ARGV: prefix, ttl seconds of ended jobs, ms by which deadlines move, then id, "bytes:NAME" of a large unended job or '', …
local ttl, later = tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
    local id, bytes = ARGV[i], ARGV[i + 1]
    local key = job_key(id)
    local job = read(id, 'status', 'origin', 'waiting_in', 'deadline_ms', 'open_in', 'ended_ms', 'archive')
    local status, name = job[1], job[2] or job[3]
    if name and (status == 'queued' or status == 'started' or status == 'scheduled') then
        local deadline = whole(job[4], now) + later
        redis.call('HSET', key, 'deadline_ms', deadline)
        redis.call('ZADD', P .. ':deadlines', deadline, id)
        for scope in (job[5] or ''):gmatch('%S+') do redis.call('ZADD', P .. ':limit:open:' .. scope, deadline, id) end
        local size, list = bytes:match('^(%d+):(.*)$')
        if size then
            redis.call('HSET', P .. ':bytes', id, bytes)
            redis.call('HINCRBY', P .. ':queued_bytes', list, size)
        end
        push('RPUSH', status == 'queued' and job[3] or name, id)
    elseif name and status then
        -- The archive takes it again, which changes nothing if it has it, and then it expires.
        if job[7] == '1' then redis.call('ZADD', P .. ':unarchived', whole(job[6], now), id) end
        redis.call('ZADD', P .. ':' .. (status == 'stopped' and 'canceled' or status) .. ':' .. name, math.floor(now / 1000) + ttl, id)
    end
end
return 1
