-- {dimensions}, {text_search_config}: from the settings, fixed for the life of the database.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE facts (
    name text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE tenants (
    id text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tenants (id) VALUES ('default');

CREATE TABLE files (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    filename text NOT NULL,
    purpose text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (tenant_id, sha256, filename, purpose)
);
CREATE INDEX files_by_age ON files (tenant_id, created_at, id);

CREATE TABLE vector_stores (
    id text PRIMARY KEY,
    tenant_id text NOT NULL REFERENCES tenants,
    name text NOT NULL DEFAULT '',
    description text,
    is_default boolean NOT NULL DEFAULT false,
    metadata jsonb NOT NULL DEFAULT '{{}}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_active_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX one_default_store ON vector_stores (tenant_id) WHERE is_default;
CREATE INDEX vector_stores_by_age ON vector_stores (tenant_id, created_at, id);

-- A file in a store. Its chunks become visible, change and disappear with its row, in one transaction.
-- An ingest may write only while it holds the row's generation and attempt.
CREATE TABLE vector_store_files (
    vector_store_id text NOT NULL REFERENCES vector_stores ON DELETE CASCADE,
    file_id text NOT NULL REFERENCES files ON DELETE CASCADE,
    tenant_id text NOT NULL REFERENCES tenants,
    status text NOT NULL DEFAULT 'in_progress' CHECK (status IN ('in_progress', 'completed', 'cancelled', 'failed')),
    error_code text,
    error_message text,
    attributes jsonb NOT NULL DEFAULT '{{}}',
    max_chunk_tokens int,
    chunk_overlap_tokens int,
    replace_same_name boolean NOT NULL DEFAULT false,
    generation int NOT NULL DEFAULT 1,
    attempt int NOT NULL DEFAULT 0,
    text text,
    page_starts int[] NOT NULL DEFAULT '{{}}',
    chunk_count int NOT NULL DEFAULT 0,
    usage_bytes bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (vector_store_id, file_id)
);
CREATE INDEX vector_store_files_by_file ON vector_store_files (file_id);

CREATE TABLE chunks (
    vector_store_id text NOT NULL,
    file_id text NOT NULL,
    ordinal int NOT NULL,
    tenant_id text NOT NULL,
    start_offset int NOT NULL,
    end_offset int NOT NULL,
    page int,
    heading text,
    token_count int NOT NULL,
    text text NOT NULL,
    embedding vector({dimensions}) NOT NULL,
    text_search tsvector NOT NULL
        GENERATED ALWAYS AS (to_tsvector('{text_search_config}', coalesce(heading, '') || ' ' || text)) STORED,
    PRIMARY KEY (vector_store_id, file_id, ordinal),
    FOREIGN KEY (vector_store_id, file_id) REFERENCES vector_store_files ON DELETE CASCADE
);
CREATE INDEX chunks_by_embedding ON chunks USING hnsw (embedding vector_cosine_ops);
CREATE INDEX chunks_by_word ON chunks USING gin (text_search);
