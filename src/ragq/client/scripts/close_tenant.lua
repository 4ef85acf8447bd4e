-- Refuse new jobs of a tenant for a time.
-- ARGV: prefix, tenant, ms.
local closed = P .. ':closed'
redis.call('ZREMRANGEBYSCORE', closed, '-inf', now)
redis.call('ZADD', closed, now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', closed, ARGV[3])
