-- Store final results, each only if its attempt still owns the job.
-- ARGV: prefix, worker's name, ttl seconds, then id, attempt, status, result field, result value, error, meta, ms run,
-- what it cost as JSON ('': nothing), its tokens, …
-- Returns 1 (stored, now or by an earlier call with the same commit) or 0 (refused) for each.
local RESULT_TYPE = {finished = 1, failed = 2}
local ttl = tonumber(ARGV[3])

-- Update the mean run time of a lane's jobs: over all at first, then over about the last 50.
local function learn(lane, ms)
    local service = P .. ':service:' .. lane
    local known = redis.call('HMGET', service, 'mean_ms', 'jobs')
    local mean, jobs = number(known[1], 0), math.min(number(known[2], 0) + 1, 50)
    redis.call('HSET', service, 'mean_ms', mean + (ms - mean) / jobs, 'jobs', jobs)
end

local answer = {}
for i = 4, #ARGV, 10 do
    local id, attempt, status = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local owned, state, name = owns(id, attempt)
    if owned then
        redis.call('XADD', P .. ':results:' .. id, 'MAXLEN', 10, '*', 'type', RESULT_TYPE[status], 'worker_name', ARGV[2],
            'execution_id', attempt, ARGV[i + 3], ARGV[i + 4])
        redis.call('HSET', job_key(id), 'error', ARGV[i + 5], 'meta', ARGV[i + 6])
        unlease(id, name, attempt)
        learn(lane_of(name), tonumber(ARGV[i + 7]))
        note_usage(id, ARGV[i + 8], ARGV[i + 9])
        finish(id, name, status, ttl)
        answer[#answer + 1] = 1
    else
        local same = read(id, 'attempt')[1] == attempt
        answer[#answer + 1] = same and state == status and 1 or 0
    end
end
return answer
