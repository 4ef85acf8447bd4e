-- Store final results, each only if its attempt still owns the job.
-- ARGV: prefix, worker's name, ttl seconds, then id, attempt, status, result field, result value, error, meta, …
-- Returns 1 (stored, now or by an earlier sending of the same commit) or 0 (refused) for each.
local RESULT_TYPE = {finished = 1, failed = 2}
local ttl = tonumber(ARGV[3])
local answer = {}
for i = 4, #ARGV, 7 do
    local id, attempt, status = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local owned, state, name = owns(id, attempt)
    if owned then
        local results = P .. ':results:' .. id
        redis.call('XADD', results, 'MAXLEN', 10, '*', 'type', RESULT_TYPE[status], 'worker_name', ARGV[2],
            'execution_id', attempt, ARGV[i + 3], ARGV[i + 4])
        redis.call('EXPIRE', results, ttl)
        redis.call('HSET', job_key(id), 'error', ARGV[i + 5], 'meta', ARGV[i + 6])
        unlease(id, name, attempt)
        finish(id, name, status, ttl)
        answer[#answer + 1] = 1
    else
        local same = redis.call('HGET', job_key(id), 'attempt') == attempt
        answer[#answer + 1] = same and state == status and 1 or 0
    end
end
return answer
