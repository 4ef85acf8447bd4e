-- The words that a chunk is found by come with it, cut to stems by the rules of its document's language. The trigger is for
-- chunks that an older version stores while it is replaced.
DROP TRIGGER index_words ON chunks;
CREATE TRIGGER index_words BEFORE INSERT ON chunks
    FOR EACH ROW WHEN (NEW.text_search IS NULL) EXECUTE FUNCTION index_words();
-- The languages of a store's documents, by whose rules the words of a question are cut. None is taken away.
ALTER TABLE vector_stores ADD COLUMN languages text[] NOT NULL DEFAULT '{{}}';
UPDATE vector_stores s SET languages = ARRAY[CASE '{text_search_config}'
    WHEN 'danish' THEN 'da' WHEN 'dutch' THEN 'nl' WHEN 'finnish' THEN 'fi' WHEN 'french' THEN 'fr' WHEN 'german' THEN 'de'
    WHEN 'hindi' THEN 'hi' WHEN 'hungarian' THEN 'hu' WHEN 'italian' THEN 'it' WHEN 'norwegian' THEN 'no'
    WHEN 'portuguese' THEN 'pt' WHEN 'romanian' THEN 'ro' WHEN 'russian' THEN 'ru' WHEN 'spanish' THEN 'es'
    WHEN 'swedish' THEN 'sv' WHEN 'turkish' THEN 'tr' ELSE 'en' END]
WHERE EXISTS (SELECT FROM vector_store_files f WHERE f.vector_store_id = s.id AND f.chunk_count > 0);
