-- lakebed sql/04, version 2, once a table: the login may read the root, every leaf, and what partman detached from it.
--
-- Leaves carry no grants of their own, and SELECT on the root does not reach a detached leaf; row-level security stands on the root
-- only, so the leaves are read directly. A table in the archive schema belongs to the root if it has the very same columns (name,
-- type, modifier) and a name that partman gives; nothing else there is touched.
--
-- By hand:  psql -v login=lakebed -v schema=public -v table=security_event -v archive=archive -f 04_table.sql

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.login', :'login', false), pg_catalog.set_config('lakebed.archive', :'archive', false),
       pg_catalog.set_config('lakebed.root', pg_catalog.format('%I.%I', :'schema'::text, :'table'::text), false);

DO $lakebed$
DECLARE
    login text := pg_catalog.current_setting('lakebed.login');
    root regclass := pg_catalog.current_setting('lakebed.root')::regclass;
    relation regclass;
    home text;
BEGIN
    FOR relation, home IN
        SELECT found.oid::regclass, n.nspname::text
        FROM (
            SELECT root::oid AS oid
            UNION
            SELECT relid::oid FROM pg_catalog.pg_partition_tree(root)
            UNION
            SELECT c.oid
            FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_class r ON r.oid = root
            CROSS JOIN LATERAL pg_catalog.regexp_replace(c.relname::text, '_p[0-9][0-9wq_]*$', '') AS stem
            WHERE n.nspname = pg_catalog.current_setting('lakebed.archive') AND c.relkind = 'r' AND NOT c.relispartition
              AND stem <> c.relname::text
              AND (stem = r.relname::text
                   OR (pg_catalog.octet_length(c.relname::text) = 63 AND pg_catalog.starts_with(r.relname::text, stem)))
              AND (SELECT pg_catalog.array_agg((attname, atttypid, atttypmod)::text ORDER BY attname)
                   FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
                = (SELECT pg_catalog.array_agg((attname, atttypid, atttypmod)::text ORDER BY attname)
                   FROM pg_catalog.pg_attribute WHERE attrelid = root AND attnum > 0 AND NOT attisdropped)
        ) AS found
        JOIN pg_catalog.pg_class c ON c.oid = found.oid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LOOP
        -- Leaves may live in another schema than the root.
        IF NOT pg_catalog.has_schema_privilege(login, home, 'USAGE') THEN
            EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', home, login);
        END IF;
        IF NOT pg_catalog.has_table_privilege(login, relation, 'SELECT') THEN
            EXECUTE pg_catalog.format('GRANT SELECT ON TABLE %s TO %I', relation, login);
        END IF;
    END LOOP;
END
$lakebed$;
