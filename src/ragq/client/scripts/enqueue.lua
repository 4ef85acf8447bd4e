-- Accept a job once: a job that exists under the id is left unchanged.
-- ARGV: prefix, id, name, deadline ms from now, most jobs ahead, most ms of waiting, most bytes in its lane and those
-- above (0: no limit), its own bytes, key to recognize a repeat by ('': none), ms for which to recognize one, 1 for a
-- repeat, then field, value, …
-- Returns {1 created | 0 existed | -1 refused, fingerprint of the existing job or why it was refused, ms after which to retry a refused one,
-- id of the existing job} and, if created, {…, ms of its creation, its place from 1, estimated ms until its end or -1}.
local id, name, most_jobs, most_ms = ARGV[2], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local most_bytes, bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local is_counted = bytes >= 4096 -- smaller ones are limited by their number; counting them would cost 10 %
local key, recent = job_key(id), ARGV[9] ~= '' and P .. ':recent:' .. ARGV[9]
if redis.call('EXISTS', key) == 1 then
    return {0, redis.call('HGET', key, 'fingerprint') or '', 0, id}
end
local closed = name:match('@(.*)$') and redis.call('ZSCORE', P .. ':closed', name:match('@(.*)$'))
if closed and tonumber(closed) > now then return {-1, 'closed', 60000, id} end
local first = recent and redis.call('GET', recent)
local state = first and read(first, 'status')[1]
if state == 'canceled' or state == 'stopped' then state = nil end
if state and ARGV[11] == '1' then return {0, redis.call('HGET', job_key(first), 'fingerprint') or '', 0, first} end

-- Bytes of unended jobs in this lane and those above.
local function held()
    local sum = 0
    for _, suffix in ipairs(LANES) do
        sum = sum + number(redis.call('HGET', P .. ':queued_bytes', queue_of(name) .. suffix), 0)
        if queue_of(name) .. suffix == lane_of(name) then break end
    end
    return sum
end

-- Refused callers form a virtual queue, so that their retries do not all come at once: each refusal adds one, and every
-- two finished jobs remove one. The other free places go to new callers; if all were promised to retries, half of the
-- retries would be refused again.
local jobs, wait, mean, slots = ahead_of(name, redis.call('LLEN', list_key(name)) + 1)
local over_jobs = most_jobs > 0 and jobs + 1 - most_jobs or 0
if over_jobs > 0 or (most_ms > 0 and wait > most_ms) or (is_counted and most_bytes > 0 and held() + bytes > most_bytes) then
    local ms_a_job = mean > 0 and slots > 0 and mean / slots or 100
    local refused = P .. ':refused:' .. lane_of(name)
    local before = redis.call('HMGET', refused, 'count', 'at')
    local count = math.max(0, number(before[1], 0) - (now - number(before[2], now)) / (2 * ms_a_job)) + 1
    redis.call('HSET', refused, 'count', count, 'at', now)
    redis.call('EXPIRE', refused, 3600)
    local room = math.max(over_jobs * ms_a_job, most_ms > 0 and wait - most_ms or 0)
    return {-1, '', math.floor(room + count * 2 * ms_a_job), id}
end

redis.call('HSET', key, 'origin', name, 'created_at', iso(now), 'enqueued_at', iso(now), 'created_ms', now,
    'deadline_ms', now + ARGV[4], 'attempt', 0, 'ticket', redis.call('HINCRBY', P .. ':tickets', name, 1),
    unpack(ARGV, 12))
if is_counted then
    redis.call('HSET', P .. ':bytes', id, ARGV[8] .. ':' .. lane_of(name))
    redis.call('HINCRBY', P .. ':queued_bytes', lane_of(name), bytes)
end
if recent and not state then redis.call('SET', recent, id, 'PX', ARGV[10]) end
redis.call('ZADD', P .. ':deadlines', now + ARGV[4], id)
push('RPUSH', name, id)
return {1, redis.call('HGET', key, 'fingerprint') or '', 0, id, now, jobs + 1, wait >= 0 and mean >= 0 and math.floor(wait + mean) or -1}
