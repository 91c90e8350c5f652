-- lakebed sql/03, version 1: the schema where partman leaves detached partitions (Step 1 of the archive guide).
--
-- A schema that exists keeps its owner and its comment. USAGE lets the login look into it; it may create nothing there.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 03_archive.sql

CREATE SCHEMA IF NOT EXISTS :"archive";
GRANT USAGE ON SCHEMA :"archive" TO :"login";

SELECT set_config('lakebed.archive', :'archive', false);

DO $lakebed$
DECLARE
    archive text := current_setting('lakebed.archive');
BEGIN
    IF obj_description((SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = archive), 'pg_namespace') IS NULL THEN
        EXECUTE format('COMMENT ON SCHEMA %I IS %L', archive, 'Detached partitions awaiting export to external storage');
    END IF;
END
$lakebed$;
