-- lakebed sql/01, version 2: the login that the pipeline uses.
--
-- It may connect and replicate, and owns nothing. An existing role only gets what it lacks, and its password is never touched.
-- On PostgreSQL 15 only a superuser may give REPLICATION.
--
-- By hand:  psql -v login=lakebed -f 01_login.sql     then     \password lakebed
-- (lakebed init sends a SCRAM-SHA-256 verifier through the setting lakebed.verifier, never the password itself.)

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.login', :'login', false);

DO $lakebed$
DECLARE
    login text := pg_catalog.current_setting('lakebed.login');
    found_role record;
BEGIN
    SELECT rolcanlogin, rolreplication, rolsuper INTO found_role FROM pg_catalog.pg_roles WHERE rolname = login;
    IF NOT FOUND THEN
        EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN REPLICATION PASSWORD %L',
                       login, nullif(pg_catalog.current_setting('lakebed.verifier', true), ''));
        RETURN;
    END IF;
    IF NOT found_role.rolcanlogin THEN
        EXECUTE pg_catalog.format('ALTER ROLE %I LOGIN', login);
    END IF;
    IF NOT (found_role.rolreplication OR found_role.rolsuper) THEN
        EXECUTE pg_catalog.format('ALTER ROLE %I REPLICATION', login);
    END IF;
END
$lakebed$;
