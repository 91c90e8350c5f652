-- lakebed sql/10, version 2: the archive guide's functions, with its names, parameters and columns.
--
-- They never drop anything: a pg_cron job that calls them asks lakebed to look, and reports what lakebed has proved and dropped. The
-- search_path of each begins with pg_catalog, and what is called from there is written out, so that nothing in the archive schema can
-- stand in for it.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 10_guide_functions.sql

SET search_path = '';

CREATE OR REPLACE FUNCTION :"archive".get_config(p_key text, p_default text DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, :"archive", pg_temp AS $body$
    SELECT coalesce((SELECT value FROM config WHERE key = p_key), p_default)
$body$;

CREATE OR REPLACE FUNCTION :"archive".build_s3_path(p_table_name text)
RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    found text[] := pg_catalog.regexp_match(p_table_name, '^(.+)_p(\d{4})_?(\d{2})(?:_?(\d{2}))?$');
BEGIN
    IF found IS NULL THEN
        RETURN 'archive/' || p_table_name || '/data.csv';
    END IF;
    RETURN found[1] || '/year=' || found[2] || '/month=' || found[3] || coalesce('/day=' || found[4], '') || '/data.csv';
END
$body$;

CREATE OR REPLACE FUNCTION :"archive".get_archive_status()
RETURNS TABLE (table_name text, row_count bigint, size_bytes bigint, size_pretty text, created_date date)
LANGUAGE plpgsql SET search_path = pg_catalog, :"archive", pg_temp AS $body$
DECLARE
    waiting record;
BEGIN
    FOR waiting IN
        SELECT c.oid, n.nspname, c.relname,
               pg_catalog.regexp_match(c.relname::text, '_p(\d{4})_?(\d{2})(?:_?(\d{2}))?(?:__\d+)?$') AS day
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relnamespace = (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = 'receipt'::regclass)
          AND c.relkind = 'r' AND c.relname NOT IN ('config', 'receipt', 'proof', 'finding', 'queue')
        ORDER BY c.relname
    LOOP
        table_name := waiting.relname;
        EXECUTE pg_catalog.format('SELECT count(*) FROM ONLY %I.%I', waiting.nspname, waiting.relname) INTO row_count;
        size_bytes := pg_catalog.pg_total_relation_size(waiting.oid);
        size_pretty := pg_catalog.pg_size_pretty(size_bytes);
        created_date := pg_catalog.make_date(waiting.day[1]::integer, waiting.day[2]::integer, coalesce(waiting.day[3], '1')::integer);
        RETURN NEXT;
    END LOOP;
END
$body$;

CREATE OR REPLACE FUNCTION :"archive".export_partition_to_external_storage(
    p_schema_name text, p_table_name text, p_destination_path text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, :"archive", pg_temp AS $body$
DECLARE
    full_name text := p_schema_name || '.' || p_table_name;
BEGIN
    -- Whoever calls this may drop the table that it says "true" for, so a table that is there is never exported.
    IF pg_catalog.to_regclass(pg_catalog.format('%I.%I', p_schema_name, p_table_name)) IS NULL THEN
        RETURN EXISTS (SELECT FROM receipt WHERE kind = 'dropped' AND partition_name = full_name);
    END IF;
    INSERT INTO queue AS queued (schema_name, table_name, destination) VALUES (p_schema_name, p_table_name, p_destination_path)
    ON CONFLICT ON CONSTRAINT queue_pkey DO UPDATE SET requested_at = pg_catalog.now(), destination = excluded.destination;
    PERFORM pg_catalog.pg_notify('lakebed_archive', full_name);
    RETURN false;
END
$body$;

CREATE OR REPLACE FUNCTION :"archive".process_archived_partitions(p_dry_run boolean DEFAULT false)
RETURNS TABLE (table_name text, row_count bigint, exported boolean, dropped boolean, message text)
LANGUAGE plpgsql SET search_path = pg_catalog, :"archive", pg_temp AS $body$
DECLARE
    home text := (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = 'receipt'::regclass);
    proved record;
BEGIN
    FOR table_name, row_count IN SELECT s.table_name, s.row_count FROM get_archive_status() s LOOP
        exported := false;
        dropped := false;
        IF p_dry_run THEN
            message := 'Would ask lakebed to balance it (' || row_count::text || ' rows)';
        ELSE
            PERFORM export_partition_to_external_storage(home, table_name);
            message := 'Waits for lakebed, which drops it when it balances (' || row_count::text || ' rows)';
        END IF;
        RETURN NEXT;
    END LOOP;
    FOR proved IN SELECT * FROM receipt WHERE kind = 'dropped' AND recorded_at > pg_catalog.now() - interval '1 day' ORDER BY sequence LOOP
        table_name := proved.partition_name;
        row_count := proved.rows;
        exported := true;
        dropped := true;
        message := 'Balanced and dropped by lakebed, receipt ' || proved.sequence::text;
        RETURN NEXT;
    END LOOP;
END
$body$;

SELECT pg_catalog.set_config('lakebed.archive', :'archive', false);
DO $lakebed$
DECLARE
    archive text := pg_catalog.current_setting('lakebed.archive');
    owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = archive);
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['get_config(text, text)', 'build_s3_path(text)', 'get_archive_status()',
        'export_partition_to_external_storage(text, text, text)', 'process_archived_partitions(boolean)'] LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %I.%s OWNER TO %I', archive, signature, owner);
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION %I.%s IS %L', archive, signature, 'lakebed sql/10, version 2');
    END LOOP;
END
$lakebed$;
