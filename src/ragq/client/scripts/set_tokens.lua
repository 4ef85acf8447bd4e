-- Set the tokens of today.
-- ARGV: prefix, scope, tokens.
redis.call('SET', spent_key(ARGV[2]), ARGV[3], 'EX', 2 * DAY / 1000)
return 1
