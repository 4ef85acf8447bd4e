-- Pages of long lists, newest first.
CREATE INDEX vector_store_files_by_age ON vector_store_files (vector_store_id, created_at, file_id);
CREATE INDEX conversations_by_age ON conversations (tenant_id, created_at, id);
