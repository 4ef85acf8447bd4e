-- Where a chunk stands in its document, and what it is searched by beside its own words: the document's name and title.
ALTER TABLE chunks ADD COLUMN location jsonb, ADD COLUMN context text;
-- What a trigger computes may change without writing every row anew, as a generated column would have to.
ALTER TABLE chunks ALTER COLUMN text_search DROP EXPRESSION;
CREATE FUNCTION index_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.text_search := to_tsvector('{text_search_config}', concat_ws(' ', NEW.context, NEW.heading, NEW.text));
    RETURN NEW;
END
$$;
CREATE TRIGGER index_words BEFORE INSERT ON chunks FOR EACH ROW EXECUTE FUNCTION index_words();
-- What the parser found beside the text: places, title, encoding, warnings.
ALTER TABLE vector_store_files ADD COLUMN details jsonb NOT NULL DEFAULT '{{}}';
