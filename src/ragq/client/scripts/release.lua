-- Hand jobs back: at once to the front of their list, or after a delay.
-- ARGV: prefix, then id, attempt, delay ms, tries to charge, …
-- Returns 1 (handed back) or 0 (the attempt did not own it) for each.
local answer = {}
for i = 2, #ARGV, 4 do
    local id, attempt, delay = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
    local owned, _, name = owns(id, attempt)
    answer[#answer + 1] = owned and 1 or 0
    if owned then
        unlease(id, name, attempt)
        redis.call('HSET', job_key(id), 'tries', whole(read(id, 'tries')[1], 0) + ARGV[i + 3])
        if delay > 0 then
            redis.call('HSET', job_key(id), 'status', 'scheduled')
            redis.call('ZADD', P .. ':delayed', now + delay, id)
            redis.call('ZADD', P .. ':scheduled:' .. name, math.ceil((now + delay) / 1000), id)
        else
            push('LPUSH', name, id)
        end
    end
end
return answer
