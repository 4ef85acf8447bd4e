-- Prepended to the scripts that tell a position: enqueue and place.

local COUNTED = 100  -- tenants of a lane, the earliest; the others are taken to have as many jobs as these

-- Count the jobs of other tenants, by lane, that are claimed before the one in the lane with this number whose turn is
-- then.
local function count_others(lanes, own_lane, own, time, turn)
    local jobs, left, last = {0, 0, 0}, nil, string.format('%.0f', turn)
    for n = 1, #lanes do
        local key, in_lane = P .. ':ring:' .. lanes[n], 0
        local ring = redis.call('ZRANGEBYSCORE', key, '-inf', last, 'WITHSCORES', 'LIMIT', '0', COUNTED)
        for i = 1, #ring, 2 do
            local suffix = ring[i]:sub(#lanes[n] + 1)
            if suffix ~= own then
                left = left or {}
                local step = shares and share_of(tenant_of(suffix)) or TURN
                local turns = left[suffix] or (turn - math.max(time, tonumber(ring[i + 1]))) / step
                -- Of two whose turns are equal, the one in the higher lane goes first, then the one whose name does.
                local is_first = n < own_lane or (n == own_lane and suffix < own)
                local most = is_first and math.floor(turns) + 1 or math.ceil(turns)
                if most > 1 then most = math.min(most, redis.call('LLEN', list_key(ring[i]))) end
                in_lane, left[suffix] = in_lane + math.max(0, most), turns - most
            end
        end
        if #ring == 2 * COUNTED then
            in_lane = math.floor(in_lane * redis.call('ZCOUNT', key, '-inf', last) / COUNTED)
        end
        jobs[n] = in_lane
    end
    return jobs
end

-- Jobs that will be claimed before the one at a place (from 1) of its list, if no others come: of its tenant those in
-- higher lanes, and of each other tenant as many as have their turn earlier. Returns their number and the ms until that
-- place's turn, from the mean run in each lane and the slots that there are; then the mean run in its own lane and the
-- slots of the queue's workers. -1 where a time is unknown.
local function ahead_of(name, place)
    local slots = number(redis.call('HGET', P .. ':capacity', queue_of(name)), 0)
    local lane, suffix, tenant = lane_of(name), suffix_of(name), tenant_of(name)
    local pool, step, most = pool_of(lane), share_of(tenant)
    local lanes, own, own_lane, jobs = lanes_of(pool), {0, 0, 0}, 1, place - 1
    while lanes[own_lane] ~= lane do
        own[own_lane] = redis.call('LLEN', list_key(lanes[own_lane] .. suffix))
        jobs, own_lane = jobs + own[own_lane], own_lane + 1
    end
    own[own_lane] = place - 1
    local time, turn = times_of(pool, tenant)
    local others = count_others(lanes, own_lane, suffix, time, turn + jobs * step)
    local wait, own_wait, own_mean = slots > 0 and 0 or -1, 0, -1
    for n = 1, #lanes do
        local in_lane = others[n] + own[n]
        if in_lane > 0 or n == own_lane then
            local mean = number(redis.call('HGET', P .. ':service:' .. lanes[n], 'mean_ms'), -1)
            if n == own_lane then own_mean = mean end
            jobs = jobs + others[n]
            if in_lane > 0 and wait >= 0 then
                wait = mean < 0 and -1 or wait + in_lane * mean / slots
                own_wait = own_wait + own[n] * mean / (most > 0 and math.min(most, slots) or slots)
            end
        end
    end
    return jobs, wait < 0 and -1 or math.max(wait, own_wait), own_mean, slots
end
