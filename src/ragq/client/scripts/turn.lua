-- Take the turn of a task of the housekeeping, if nobody has had it within its period.
-- ARGV: prefix, task, ms of the period.
-- Returns 1, or 0 when it is another's.
return redis.call('SET', P .. ':turn:' .. ARGV[2], 1, 'NX', 'PX', ARGV[3]) and 1 or 0
