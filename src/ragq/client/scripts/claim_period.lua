-- Claim a periodic task: true for one process in each period.
-- ARGV: prefix, task, ms of the period.
-- Returns 1, or 0 when another process has claimed it.
return redis.call('SET', P .. ':turn:' .. ARGV[2], 1, 'NX', 'PX', ARGV[3]) and 1 or 0
