-- Estimate the position of an unended job and the time until its end.
-- ARGV: prefix, id.
-- Returns {place in its queue from 1 (0: running), ms until its end or -1 if unknown}.
local job = redis.call('HMGET', job_key(ARGV[2]), 'status', 'origin', 'ticket', 'waiting_in', 'started_ms')
local status, name = job[1], job[2]
if status == 'started' then
    local mean = number(redis.call('HGET', P .. ':service:' .. lane_of(name), 'mean_ms'), -1)
    if mean < 0 then return {0, -1} end
    return {0, math.floor(math.max(mean - (now - whole(job[5], now)), mean / 10))}
elseif status == 'queued' then
    local place = job[4] == name and whole(job[3], 1) - number(redis.call('HGET', P .. ':served', name), 0) or 1
    local jobs, wait, mean = ahead_of(name, math.max(1, place))
    return {jobs + 1, wait >= 0 and mean >= 0 and math.floor(wait + mean) or -1}
end
return {0, -1}
