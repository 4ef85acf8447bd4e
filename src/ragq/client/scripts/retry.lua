-- Queue a failed or cancelled job again, at the back of its list, with its whole time and no tries.
-- ARGV: prefix, id.
-- Returns 1, or 0 for one that is unknown, has not ended or has a result, or whose tenant is being deleted.
local id = ARGV[2]
local job = read(id, 'ended_ms', 'origin', 'data', 'deadline_ms', 'created_ms', 'status', 'attempt', 'open_in')
local name = job[2]
if not job[1] or not name or not job[3] or job[6] == 'finished' then return 0 end
local closed = suffix_of(name) ~= '' and redis.call('ZSCORE', P .. ':closed', tenant_of(name))
if closed and tonumber(closed) > now then return 0 end
local key, deadline = job_key(id), now + whole(job[4], now) - whole(job[5], now)
redis.call('HDEL', key, 'ended_ms', 'ended_at', 'tries', 'deaths', 'deaths_alone', 'error')
redis.call('HSET', key, 'ended_attempt', whole(job[7], 0)) -- its worker may not know yet that it has ended
redis.call('PERSIST', key)
redis.call('DEL', P .. ':events:' .. id)
redis.call('ZREM', P .. ':unarchived', id)
for _, state in ipairs({'finished', 'failed', 'canceled'}) do redis.call('ZREM', P .. ':' .. state .. ':' .. name, id) end
redis.call('HSET', key, 'deadline_ms', deadline, 'created_ms', now, 'ticket', redis.call('HINCRBY', P .. ':tickets', name, 1))
redis.call('ZADD', P .. ':deadlines', deadline, id)
for scope in (job[8] or ''):gmatch('%S+') do redis.call('ZADD', P .. ':limit:open:' .. scope, deadline, id) end
push('RPUSH', name, id)
return 1
