-- Count tokens that were used on a day before its limit was set; the day may have ended since.
-- ARGV: prefix, scope, tokens, day of UTC, counted in days since 1970.
-- What is counted already may be more: it has jobs that PostgreSQL has not added up yet.
if tonumber(ARGV[4]) ~= math.floor(now / DAY) then return 0 end
if tonumber(ARGV[3]) <= number(redis.call('GET', spent_key(ARGV[2])), 0) then return 0 end
redis.call('SET', spent_key(ARGV[2]), ARGV[3], 'EX', 2 * DAY / 1000)
return 1
