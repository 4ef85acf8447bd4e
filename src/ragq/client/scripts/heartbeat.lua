-- Renew the leases of the jobs in flight.
-- ARGV: prefix, lease ms, then id, attempt, meta ('': unchanged), …
-- Returns the ids whose attempt is no longer the owner: stop working on them.
local lost = {}
for i = 3, #ARGV, 3 do
    local id = ARGV[i]
    if owns(id, ARGV[i + 1]) then
        redis.call('ZADD', P .. ':leases', now + ARGV[2], id)
        redis.call('HSET', job_key(id), 'last_heartbeat', iso(now))
        if ARGV[i + 2] ~= '' then redis.call('HSET', job_key(id), 'meta', ARGV[i + 2]) end
    else
        lost[#lost + 1] = id
    end
end
return lost
