-- Add to the event logs of jobs in flight, each only if its attempt owns the job.
-- ARGV: prefix, lease ms, then id, attempt, entry, …
-- Returns the ids whose attempt is no longer the owner: stop working on them.
local lost = {}
for i = 3, #ARGV, 3 do
    local id = ARGV[i]
    if owns(id, ARGV[i + 1]) then
        redis.call('ZADD', P .. ':leases', now + ARGV[2], id)
        redis.call('XADD', P .. ':events:' .. id, '*', 'attempt', ARGV[i + 1], 'events', ARGV[i + 2])
    else
        lost[#lost + 1] = id
    end
end
return lost
