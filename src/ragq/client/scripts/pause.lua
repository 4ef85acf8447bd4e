-- Pause a queue, or let it go on: while it is paused, no worker claims its jobs.
-- ARGV: prefix, queue, 1 to pause it.
if ARGV[3] == '1' then
    redis.call('SADD', P .. ':paused', ARGV[2])
    return
end
redis.call('SREM', P .. ':paused', ARGV[2])
for _, lane in ipairs({'.priority', '', '.flex', '.solo'}) do redis.call('PUBLISH', P .. ':wake', ARGV[2] .. lane) end
