-- lakebed sql/04, version 1, once a table: the login may read the root, every leaf, and what partman detached from it.
--
-- Leaves carry no grants of their own, and SELECT on the root does not reach a detached leaf; row-level security stands on the root
-- only, so the leaves are read directly. A table in the archive schema belongs to the root if it has the very same columns (name,
-- type, modifier) and a name that partman gives; nothing else there is touched.
--
-- By hand:  psql -v login=lakebed -v schema=public -v table=security_event -v archive=archive -f 04_table.sql

GRANT USAGE ON SCHEMA :"schema" TO :"login";

SELECT set_config('lakebed.login', :'login', false), set_config('lakebed.archive', :'archive', false),
       set_config('lakebed.root', format('%I.%I', :'schema'::text, :'table'::text), false);

DO $lakebed$
DECLARE
    login text := current_setting('lakebed.login');
    root regclass := current_setting('lakebed.root')::regclass;
    relation regclass;
BEGIN
    FOR relation IN
        SELECT root
        UNION
        SELECT relid FROM pg_partition_tree(root)
        UNION
        SELECT c.oid::regclass
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_class r ON r.oid = root
        CROSS JOIN LATERAL regexp_replace(c.relname, '_p[0-9][0-9wq_]*$', '') AS stem
        WHERE n.nspname = current_setting('lakebed.archive') AND c.relkind = 'r' AND NOT c.relispartition
          AND stem <> c.relname
          AND (stem = r.relname OR (octet_length(c.relname) = 63 AND starts_with(r.relname::text, stem)))
          AND (SELECT array_agg((attname, atttypid, atttypmod)::text ORDER BY attname) FROM pg_catalog.pg_attribute
               WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
            = (SELECT array_agg((attname, atttypid, atttypmod)::text ORDER BY attname) FROM pg_catalog.pg_attribute
               WHERE attrelid = root AND attnum > 0 AND NOT attisdropped)
    LOOP
        IF NOT has_table_privilege(login, relation, 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON TABLE %s TO %I', relation, login);
        END IF;
    END LOOP;
END
$lakebed$;
