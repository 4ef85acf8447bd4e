-- Note what an attempt cost that does not commit its job, which may be gone.
-- ARGV: prefix, id, tenant, what it cost as JSON, its tokens.
note_usage(ARGV[2], ARGV[4], ARGV[5], ARGV[3])
return 1
