-- lakebed sql/10, version 3: the archive guide's functions, with its names, parameters and columns.
--
-- They never drop anything: a pg_cron job that calls them asks lakebed to look, and reports what lakebed has proved and dropped.
--
-- Nothing is looked up in the archive schema but what is written out, since others may create there: neither functions nor operators of
-- theirs may stand in for the server's. So the schema's name is put into each text (@archive@), and is on no search_path.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 10_guide_functions.sql

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.archive', :'archive', false), pg_catalog.set_config('lakebed.login', :'login', false);

DO $lakebed$
DECLARE
    archive text := pg_catalog.quote_ident(pg_catalog.current_setting('lakebed.archive'));
    owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace
                   WHERE nspname = pg_catalog.current_setting('lakebed.archive'));
    creator text;
    signature text;
BEGIN

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.get_config(p_key text, p_default text DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce((SELECT value FROM @archive@.config WHERE key = p_key), p_default)
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.build_s3_path(p_table_name text)
RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    found text[] := regexp_match(p_table_name, '^(.+)_p(\d{4})_?(\d{2})(?:_?(\d{2}))?$');
BEGIN
    IF found IS NULL THEN
        RETURN 'archive/' || p_table_name || '/data.csv';
    END IF;
    RETURN found[1] || '/year=' || found[2] || '/month=' || found[3] || coalesce('/day=' || found[4], '') || '/data.csv';
END
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.get_archive_status()
RETURNS TABLE (table_name text, row_count bigint, size_bytes bigint, size_pretty text, created_date date)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    waiting record;
BEGIN
    FOR waiting IN
        SELECT c.oid, n.nspname, c.relname,
               regexp_match(c.relname::text, '_p(\d{4})_?(0[1-9]|1[0-2])(?:_?(0[1-9]|[12]\d|3[01]))?(?:__\d+)?$') AS day
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = '@archive@.receipt'::regclass::oid)
          AND c.relkind = 'r' AND c.relname::text NOT IN ('config', 'receipt', 'proof', 'finding', 'queue')
        ORDER BY c.relname::text
    LOOP
        table_name := waiting.relname;
        EXECUTE format('SELECT count(*) FROM ONLY %I.%I', waiting.nspname, waiting.relname) INTO row_count;
        size_bytes := pg_total_relation_size(waiting.oid);
        size_pretty := pg_size_pretty(size_bytes);
        -- 31 February is no day; such a name is shown without one.
        created_date := CASE WHEN waiting.day IS NOT NULL THEN
            (SELECT given.day::date FROM generate_series(make_date(waiting.day[1]::integer, waiting.day[2]::integer, 1)::timestamp,
                 make_date(waiting.day[1]::integer, waiting.day[2]::integer, 1)::timestamp + interval '30 days', interval '1 day') given (day)
             WHERE to_char(given.day, 'MM DD') = waiting.day[2] || ' ' || coalesce(waiting.day[3], '01')) END;
        RETURN NEXT;
    END LOOP;
END
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.export_partition_to_external_storage(
    p_schema_name text, p_table_name text, p_destination_path text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    full_name text := p_schema_name || '.' || p_table_name;
BEGIN
    -- Whoever calls this may drop the table that it says "true" for, so a table that is there is never exported.
    IF to_regclass(format('%I.%I', p_schema_name, p_table_name)) IS NULL THEN
        RETURN EXISTS (SELECT FROM @archive@.receipt WHERE kind = 'dropped' AND partition_name = full_name);
    END IF;
    IF p_schema_name IS DISTINCT FROM (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                       WHERE c.oid = '@archive@.receipt'::regclass::oid) THEN
        RETURN false;
    END IF;
    INSERT INTO @archive@.queue AS queued (schema_name, table_name, destination) VALUES (p_schema_name, p_table_name, p_destination_path)
    ON CONFLICT ON CONSTRAINT queue_pkey DO UPDATE SET requested_at = now(), destination = excluded.destination;
    PERFORM pg_notify('lakebed_archive', full_name);
    RETURN false;
END
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.process_archived_partitions(p_dry_run boolean DEFAULT false)
RETURNS TABLE (table_name text, row_count bigint, exported boolean, dropped boolean, message text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    home text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = '@archive@.receipt'::regclass::oid);
    proved record;
BEGIN
    FOR table_name, row_count IN SELECT s.table_name, s.row_count FROM @archive@.get_archive_status() s LOOP
        exported := false;
        dropped := false;
        IF p_dry_run THEN
            message := 'Would ask lakebed to balance it (' || row_count::text || ' rows)';
        ELSE
            PERFORM @archive@.export_partition_to_external_storage(home, table_name);
            message := 'Waits for lakebed, which drops it when it balances (' || row_count::text || ' rows)';
        END IF;
        RETURN NEXT;
    END LOOP;
    FOR proved IN SELECT * FROM @archive@.receipt r WHERE r.kind = 'dropped' AND r.recorded_at > now() - interval '1 day' ORDER BY r.sequence LOOP
        table_name := proved.partition_name;
        row_count := proved.rows;
        exported := true;
        dropped := true;
        message := 'Balanced and dropped by lakebed, receipt ' || proved.sequence::text;
        RETURN NEXT;
    END LOOP;
END
$body$
$create$, '@archive@', archive);

FOREACH signature IN ARRAY ARRAY['get_config(text, text)', 'build_s3_path(text)', 'get_archive_status()',
    'export_partition_to_external_storage(text, text, text)', 'process_archived_partitions(boolean)'] LOOP
    EXECUTE pg_catalog.format('ALTER FUNCTION %s.%s OWNER TO %I', archive, signature, owner);
    EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s.%s IS %L', archive, signature, 'lakebed sql/10, version 3');
END LOOP;
-- Whoever runs partman, and may so create in the schema, may ask; nobody else need.
EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s.export_partition_to_external_storage(text, text, text) FROM PUBLIC', archive);
FOR creator IN SELECT rolname::text FROM pg_catalog.pg_roles
               WHERE NOT rolsuper AND pg_catalog.has_schema_privilege(oid, pg_catalog.current_setting('lakebed.archive'), 'CREATE') LOOP
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s.export_partition_to_external_storage(text, text, text) TO %I', archive, creator);
END LOOP;

END
$lakebed$;
