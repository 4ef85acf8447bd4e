-- Cancel a job in any state; an ended one is left unchanged.
-- ARGV: prefix, id, ttl seconds, the attempt that RQ's command stops or ''. A job that is at another one is left unchanged, too.
-- Returns the status before, or false for an unknown id.
local id = ARGV[2]
local job = read(id, 'status', 'origin', 'waiting_in', 'attempt', 'worker_name')
local status, name = job[1], job[2] or job[3] or ''
if not status then return false end
if ARGV[4] ~= '' and ARGV[4] ~= (job[4] or '') then return status end
if status == 'queued' then
    redis.call('LREM', list_key(job[3] or name), 1, id)
elseif status == 'scheduled' then
    redis.call('ZREM', P .. ':delayed', id)
    redis.call('ZREM', P .. ':scheduled:' .. name, id)
elseif status == 'started' then
    unlease(id, name, job[4] or '')
    redis.call('PUBLISH', P .. ':pubsub:' .. (job[5] or ''), cjson.encode({command = 'stop-job', job_id = id, attempt = whole(job[4], 0)}))
else
    return status
end
finish(id, name, ARGV[4] == '' and 'canceled' or 'stopped', tonumber(ARGV[3]))
return status
