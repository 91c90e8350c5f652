-- lakebed sql/03, version 2, once a role that runs partman: the schema where partman leaves detached partitions (Step 1 of the
-- archive guide).
--
-- Retention moves a table there with the rights of whoever runs it, so that role must be able to create in the schema. One that is
-- missing is created as its own; one that exists keeps its owner and its comment. The login may look into it and create nothing.
--
-- By hand:  psql -v login=lakebed -v archive=archive -v creator=idp -f 03_archive.sql

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.login', :'login', false), pg_catalog.set_config('lakebed.archive', :'archive', false),
       pg_catalog.set_config('lakebed.creator', :'creator', false);

DO $lakebed$
DECLARE
    login text := pg_catalog.current_setting('lakebed.login');
    archive text := pg_catalog.current_setting('lakebed.archive');
    creator text := pg_catalog.current_setting('lakebed.creator');
BEGIN
    -- IF NOT EXISTS would ask for CREATE on the database even where the schema exists.
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = archive) THEN
        EXECUTE pg_catalog.format('CREATE SCHEMA %I AUTHORIZATION %I', archive, creator);
        EXECUTE pg_catalog.format('COMMENT ON SCHEMA %I IS %L', archive,
                                  'Detached partitions awaiting export to external storage');
    END IF;
    IF NOT (pg_catalog.has_schema_privilege(creator, archive, 'USAGE')
            AND pg_catalog.has_schema_privilege(creator, archive, 'CREATE')) THEN
        EXECUTE pg_catalog.format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', archive, creator);
    END IF;
    IF NOT pg_catalog.has_schema_privilege(login, archive, 'USAGE') THEN
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', archive, login);
    END IF;
END
$lakebed$;
