-- Accept a job once: an id that exists is left as it is.
-- ARGV: prefix, id, name, deadline ms from now, then field, value, …
-- Returns {1, fingerprint} when created, {0, fingerprint of the one there} otherwise.
local id, name = ARGV[2], ARGV[3]
local key = job_key(id)
if redis.call('EXISTS', key) == 1 then
    return {0, redis.call('HGET', key, 'fingerprint') or ''}
end
redis.call('HSET', key, 'origin', name, 'created_at', iso(now), 'enqueued_at', iso(now), 'created_ms', now,
    'deadline_ms', now + ARGV[4], 'attempt', 0, 'ticket', redis.call('HINCRBY', P .. ':tickets', name, 1),
    unpack(ARGV, 5))
push('RPUSH', name, id)
return {1, redis.call('HGET', key, 'fingerprint') or ''}
