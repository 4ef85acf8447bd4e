-- read
-- Read a job of a tenant. Another tenant's is not read, so that it takes no longer than an unknown id. Without common.lua, whose start takes longer.
-- ARGV: prefix, id, tenant.
-- Returns {fields and values, the newest result}, or false.
local key = ARGV[1] .. ':job:' .. ARGV[2]
if redis.pcall('HGET', key, 'tenant') ~= ARGV[3] then return false end
return {redis.call('HGETALL', key), redis.call('XREVRANGE', ARGV[1] .. ':results:' .. ARGV[2], '+', '-', 'COUNT', 1)}
