-- Let archived jobs expire after the ttl.
-- ARGV: prefix, ttl seconds, then id, ms of the end that was archived, …
for i = 3, #ARGV, 2 do
    local id = ARGV[i]
    if redis.call('HGET', job_key(id), 'ended_ms') == ARGV[i + 1] then
        redis.call('EXPIRE', job_key(id), ARGV[2])
        redis.call('EXPIRE', P .. ':results:' .. id, ARGV[2])
        redis.call('ZREM', P .. ':unarchived', id)
    elseif redis.call('EXISTS', job_key(id)) == 0 then
        redis.call('ZREM', P .. ':unarchived', id)
    end
end
