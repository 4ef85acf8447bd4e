-- Write the weights and limits of all tenants that have other ones than 1 and none.
-- ARGV: prefix, then tenant, "weight:most running jobs of a queue, or 0", …
local old = redis.call('HGETALL', P .. ':shares')
local changed = {}
for i = 1, #old, 2 do changed[old[i]] = old[i + 1] end
for i = 2, #ARGV, 2 do
    if changed[ARGV[i]] == ARGV[i + 1] then changed[ARGV[i]] = nil else changed[ARGV[i]] = '' end
end
if next(changed) == nil then return end
redis.call('DEL', P .. ':shares')
for i = 2, #ARGV, 2 do redis.call('HSET', P .. ':shares', ARGV[i], ARGV[i + 1]) end
for tenant in pairs(changed) do  -- its limit may be higher
    for _, queue in ipairs({'queries', 'documents'}) do rejoin(queue, tenant == 'default' and '' or '@' .. tenant) end
end
