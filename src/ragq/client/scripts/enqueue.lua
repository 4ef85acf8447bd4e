-- Accept a job once: a job that exists under the id is left unchanged.
-- ARGV: prefix, id, name, deadline ms from now, most jobs ahead, most ms of waiting, most bytes in its lane and those
-- above, of all tenants together (0: no limit), its own bytes, key to recognize a repeat by ('': none), ms for which to recognize one, 1 for a
-- repeat, limits as JSON (see limits.lua; '': none), then field, value, …
-- Returns {1 created | 0 existed | -1 refused, fingerprint of the existing job or why it was refused, ms after which to retry a refused one,
-- id of the existing job} and, if created, {…, ms of its creation, its place from 1, estimated ms until its end or -1}; unless it
-- existed, {…, what is left of the limits}.
local id, name, most_jobs, most_ms = ARGV[2], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
local most_bytes, bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local is_counted = bytes >= 4096 -- smaller ones are limited by their number; counting them would cost 10 %
local key, recent = job_key(id), ARGV[9] ~= '' and P .. ':recent:' .. ARGV[9]
if redis.call('EXISTS', key) == 1 then
    return {0, redis.call('HGET', key, 'fingerprint') or '', 0, id}
end
local closed = suffix_of(name) ~= '' and redis.call('ZSCORE', P .. ':closed', tenant_of(name))
if closed and tonumber(closed) > now then return {-1, 'closed', 60000, id, {}} end
local first = recent and redis.call('GET', recent)
local state = first and read(first, 'status')[1]
if state == 'canceled' or state == 'stopped' then state = nil end
if state and ARGV[11] == '1' then return {0, redis.call('HGET', job_key(first), 'fingerprint') or '', 0, first} end

-- Whether the unended jobs in this lane and those above have too many bytes with this one: all together, and this tenant's
-- more than its equal part, so that another's do not keep it out.
local function is_over()
    local counted, tenants, count, sum = {}, {[tenant_of(name)] = bytes}, 1, bytes
    for _, lane in ipairs(LANES) do
        counted[queue_of(name) .. lane] = true
        if queue_of(name) .. lane == lane_of(name) then break end
    end
    local held = redis.call('HGETALL', P .. ':queued_bytes')
    for i = 1, #held, 2 do
        local tenant = tenant_of(held[i])
        if counted[lane_of(held[i])] then
            if not tenants[tenant] then count = count + 1 end
            tenants[tenant] = (tenants[tenant] or 0) + held[i + 1]
            sum = sum + held[i + 1]
        end
    end
    return sum > most_bytes and tenants[tenant_of(name)] > most_bytes / count
end

-- Refused callers form a virtual queue, so that their retries do not all come at once: each refusal adds one, and every
-- two finished jobs remove one. The other free places go to new callers; if all were promised to retries, half of the
-- retries would be refused again.
local jobs, wait, mean, slots = ahead_of(name, redis.call('LLEN', list_key(name)) + 1)
local over_jobs = most_jobs > 0 and jobs + 1 - most_jobs or 0
if over_jobs > 0 or (most_ms > 0 and wait > most_ms) or (is_counted and most_bytes > 0 and is_over()) then
    local ms_a_job = mean > 0 and slots > 0 and mean / slots or 100
    local refused = P .. ':refused:' .. name
    local before = redis.call('HMGET', refused, 'count', 'at')
    local count = math.max(0, number(before[1], 0) - (now - number(before[2], now)) / (2 * ms_a_job)) + 1
    redis.call('HSET', refused, 'count', count, 'at', now)
    redis.call('EXPIRE', refused, 3600)
    local room = math.max(over_jobs * ms_a_job, most_ms > 0 and wait - most_ms or 0)
    return {-1, '', math.floor(room + count * 2 * ms_a_job), id, {}}
end
local limits, left = ARGV[12] ~= '' and cjson.decode(ARGV[12]), {}
if limits then
    local why, retry_ms
    why, retry_ms, left = admit(limits, math.max(1000, mean))
    if why then return {-1, why, retry_ms, id, left} end
end

redis.call('HSET', key, 'origin', name, 'created_at', iso(now), 'enqueued_at', iso(now), 'created_ms', now,
    'deadline_ms', now + ARGV[4], 'attempt', 0, 'status', 'queued', 'waiting_in', name, 'ticket', redis.call('HINCRBY', P .. ':tickets', name, 1),
    unpack(ARGV, 13))
if limits then note_scopes(limits, id, now + ARGV[4]) end
if is_counted then
    redis.call('HSET', P .. ':bytes', id, ARGV[8] .. ':' .. name)
    redis.call('HINCRBY', P .. ':queued_bytes', name, bytes)
end
if recent and not state then redis.call('SET', recent, id, 'PX', ARGV[10]) end
redis.call('ZADD', P .. ':deadlines', now + ARGV[4], id)
put('RPUSH', name, id)
return {1, redis.call('HGET', key, 'fingerprint') or '', 0, id, now, jobs + 1, wait >= 0 and mean >= 0 and math.floor(wait + mean) or -1, left}
