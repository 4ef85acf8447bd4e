-- End a job in any state and delete all of its keys.
-- ARGV: prefix, id.
-- Returns 1, or 0 for an unknown id.
local id = ARGV[2]
local job = read(id, 'status', 'origin', 'waiting_in', 'attempt', 'worker_name')
local status, name = job[1], job[2] or job[3] or ''
if not status then return 0 end
if status == 'queued' then redis.call('LREM', list_key(job[3] or name), 1, id) end
unlease(id, name, job[4] or '')
free(id)
for _, set in ipairs({'delayed', 'deadlines', 'unarchived', 'scheduled:' .. name, 'finished:' .. name, 'failed:' .. name,
    'canceled:' .. name}) do
    redis.call('ZREM', P .. ':' .. set, id)
end
if status == 'started' then keep_scopes(id) end
redis.call('DEL', job_key(id), P .. ':results:' .. id, P .. ':events:' .. id)
if status == 'started' then
    redis.call('PUBLISH', P .. ':pubsub:' .. (job[5] or ''), cjson.encode({command = 'stop-job', job_id = id, attempt = whole(job[4], 0)}))
end
redis.call('PUBLISH', P .. ':done', id)
return 1
