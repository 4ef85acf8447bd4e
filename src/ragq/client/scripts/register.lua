-- Register a worker for RQ's tools and the estimates; the entry expires unless it is repeated.
-- ARGV: prefix, worker's name, seconds, number of its lists, list, …, then field, value, …
local key, lists = P .. ':worker:' .. ARGV[2], tonumber(ARGV[4])
redis.call('HSET', key, unpack(ARGV, 5 + lists))
redis.call('EXPIRE', key, ARGV[3])
redis.call('SADD', P .. ':workers', key)
for i = 5, 4 + lists do
    redis.call('SADD', P .. ':workers:' .. ARGV[i], key)
    redis.call('SADD', P .. ':queues', list_key(ARGV[i]))
end
