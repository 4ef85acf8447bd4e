-- Add to the event logs of jobs in flight, each only if its attempt owns the job.
-- ARGV: prefix, lease ms, then id, attempt, number of the entry from 1, entry, …
-- An entry's id is attempt-number, so that one sent again, or again to another server, is the same. In a log that ends with an
-- entry of version 0.1, whose id is a time in ms, it is LATE + attempt-number: ids only grow.
-- Returns the ids whose attempt is no longer the owner: stop working on them.
local EARLIEST_TIME, LATE = 1000000000000, 1000000000000000
local lost = {}

local function base_of(log)
    local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    return last and tonumber(last[1]:match('^%d+')) >= EARLIEST_TIME and LATE or 0
end

for i = 3, #ARGV, 4 do
    local id = ARGV[i]
    if owns(id, ARGV[i + 1]) then
        redis.call('ZADD', P .. ':leases', now + ARGV[2], id)
        local log = P .. ':events:' .. id
        local entry = string.format('%.0f-%s', base_of(log) + ARGV[i + 1], ARGV[i + 2])
        redis.pcall('XADD', log, entry, 'attempt', ARGV[i + 1], 'events', ARGV[i + 3], 'at', now)
    else
        lost[#lost + 1] = id
    end
end
return lost
