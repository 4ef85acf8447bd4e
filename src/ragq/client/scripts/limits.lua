-- Prepended to the scripts that use it: the limits of a tenant and of a key, each a SCOPE, "t:TENANT" or "k:KEY".
--
--   P:limit:requests:SCOPE     when the requests so far will have been paid off by their rate, ms
--   P:limit:open:SCOPE         id -> deadline, ms, of the unended questions
--   P:limit:tokens:DAY:SCOPE   tokens of a day of UTC, counted in days since 1970
--   P:limit:deleted:ID         what a job that was deleted while it ran counts for
--   P:usage                    stream: what jobs cost, until PostgreSQL has added it up
--   P:over_budget              tenant -> end of the month, ms
local MINUTE, DAY = 60000, 86400000

local function spent_key(scope) return P .. ':limit:tokens:' .. math.floor(now / DAY) .. ':' .. scope end

-- The time at which a scope's requests would be paid off, were there one more, and the ms after which there may be one.
local function pay_off(scope, a_minute)
    local paid_at = number(redis.call('GET', P .. ':limit:requests:' .. scope), 0)
    local after = math.max(paid_at, now) + MINUTE / a_minute
    return after, after - now - MINUTE
end

-- Check a request against limits, and count it if it is within all of them.
-- limits: {scopes = {{scope =, requests =, queued =, tokens =}, …}, tenant = its id if it has a budget,
--          is_counted = the request was counted before, is_question =, uses_tokens =}
-- Returns why it is refused ('requests t:acme') and the ms after which to retry, or nil; then what is left, as a flat list:
-- name, limit, remaining, ms until the limit is whole again, …
local function admit(limits, ms_a_job)
    local left, paid = {}, {}
    local refused, retry_ms
    local function refuse(why, ms)
        if not refused or ms > retry_ms then refused, retry_ms = why, ms end
    end
    if limits.tenant and not limits.is_counted then
        local ends = number(redis.call('ZSCORE', P .. ':over_budget', limits.tenant), 0)
        if ends > now then refuse('budget t:' .. limits.tenant, ends - now) end
    end
    for _, one in ipairs(limits.scopes) do
        local open = P .. ':limit:open:' .. one.scope
        if one.queued and limits.is_question then
            redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
            if redis.call('ZCARD', open) >= one.queued then refuse('queued ' .. one.scope, ms_a_job) end
        end
        if one.tokens and limits.uses_tokens then
            local spent = number(redis.call('GET', spent_key(one.scope)), 0)
            local ms = DAY - now % DAY
            if spent >= one.tokens and not limits.is_counted then refuse('tokens ' .. one.scope, ms) end
            left[#left + 1] = {'tokens', one.tokens, math.max(0, one.tokens - spent), ms}
        end
        if one.requests and not limits.is_counted then
            local after, ms = pay_off(one.scope, one.requests)
            if ms > 0.001 then refuse('requests ' .. one.scope, ms) end
            paid[#paid + 1] = {one, after}
        end
    end
    for _, pair in ipairs(paid) do
        local one, after = pair[1], pair[2]
        if refused then after = after - MINUTE / one.requests
        else redis.call('SET', P .. ':limit:requests:' .. one.scope, string.format('%.3f', after), 'PX', math.ceil(after - now) + 1) end
        local remaining = math.floor((MINUTE - (after - now)) * one.requests / MINUTE + 0.001)
        left[#left + 1] = {'requests', one.requests, math.max(0, remaining), math.ceil(after - now)}
    end
    local flat = {}
    for _, item in ipairs(left) do
        for _, value in ipairs(item) do flat[#flat + 1] = value end
    end
    return refused, retry_ms and math.ceil(retry_ms), flat
end

-- Remember of an accepted job which scopes its end and its tokens concern.
local function note_scopes(limits, id, deadline)
    local open, metered = {}, {}
    for _, one in ipairs(limits.scopes) do
        if one.queued and limits.is_question then
            redis.call('ZADD', P .. ':limit:open:' .. one.scope, deadline, id)
            open[#open + 1] = one.scope
        end
        if one.tokens and limits.uses_tokens then metered[#metered + 1] = one.scope end
    end
    if #open > 0 then redis.call('HSET', job_key(id), 'open_in', table.concat(open, ' ')) end
    if #metered > 0 then redis.call('HSET', job_key(id), 'metered_in', table.concat(metered, ' ')) end
end

-- Let what a job spent be counted also after it is deleted.
local function keep_scopes(id)
    local job = read(id, 'key', 'metered_in')
    if not job[1] then return end
    redis.call('HSET', P .. ':limit:deleted:' .. id, 'key', job[1], 'metered_in', job[2] or '')
    redis.call('EXPIRE', P .. ':limit:deleted:' .. id, 600)
end

-- Note what a job cost: in the stream from which PostgreSQL adds it up, and for the day's limits.
local function note_usage(id, usage, tokens, tenant)
    if usage == '' then return end
    local job = read(id, 'key', 'metered_in', 'tenant')
    if not job[3] then job = redis.call('HMGET', P .. ':limit:deleted:' .. id, 'key', 'metered_in') end
    redis.call('XADD', P .. ':usage', '*', 'tenant', job[3] or tenant or '', 'key', job[1] or '', 'usage', usage)
    for scope in (job[2] or ''):gmatch('%S+') do
        redis.call('INCRBY', spent_key(scope), tokens)
        redis.call('EXPIRE', spent_key(scope), 2 * DAY / 1000)
    end
end
