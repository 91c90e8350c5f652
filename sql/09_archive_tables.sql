-- lakebed sql/09, version 3: the tables that stand in the archive schema beside what partman detached.
--
-- config is the guide's. A receipt proves what was dropped: `content` is the text that was hashed, it holds the hash of the receipt
-- before it, and the other columns repeat what is looked for. proof says of a day that is still attached how its last balance went, for each pipeline,
-- finding keeps what did not balance, queue what the guide's functions asked for. All belong to the owner of the schema; the login reads,
-- and writes through the functions of sql/11 and sql/12 alone.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 09_archive_tables.sql

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.archive', :'archive', false);

-- A table of one of these names that somebody else made could have triggers and rules, which would run with the owner's rights.
DO $lakebed$
DECLARE
    foreign_table text := (
        SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = pg_catalog.current_setting('lakebed.archive')
          AND c.relname::text IN ('receipt', 'proof', 'finding', 'queue')
          AND (c.relowner <> n.nspowner OR c.relhastriggers OR c.relhasrules OR c.relkind <> 'r'
               OR coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), '') NOT LIKE 'lakebed sql/09,%') LIMIT 1);
BEGIN
    IF foreign_table IS NOT NULL THEN
        RAISE EXCEPTION 'schema % has a table % that lakebed did not make', pg_catalog.current_setting('lakebed.archive'), foreign_table
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Rename it, and run init again.';
    END IF;
END
$lakebed$;

CREATE TABLE IF NOT EXISTS :"archive".config (
    key text PRIMARY KEY,
    value text NOT NULL,
    description text,
    updated_at timestamp DEFAULT pg_catalog.now()
);

CREATE TABLE IF NOT EXISTS :"archive".receipt (
    sequence bigint PRIMARY KEY,
    kind text NOT NULL,
    table_name text NOT NULL,
    partition_name text NOT NULL,
    lower_bound date NOT NULL,
    upper_bound date NOT NULL,
    rows bigint NOT NULL,
    digest text NOT NULL,
    digest_rule integer NOT NULL,
    columns jsonb NOT NULL,
    lake_rows bigint NOT NULL,
    lake_digest text NOT NULL,
    delta_version bigint NOT NULL,
    lsn pg_lsn NOT NULL,
    frozen_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    recorded_by text NOT NULL,
    content text NOT NULL,
    hash text NOT NULL
);
CREATE INDEX IF NOT EXISTS receipt_table_day ON :"archive".receipt (table_name, lower_bound);

CREATE TABLE IF NOT EXISTS :"archive".proof (
    slot_name text NOT NULL,
    table_name text NOT NULL,
    lower_bound date NOT NULL,
    upper_bound date NOT NULL,
    balanced boolean NOT NULL,
    rows bigint NOT NULL,
    digest text NOT NULL,
    lake_rows bigint NOT NULL,
    lake_digest text NOT NULL,
    lake_files text NOT NULL,
    delta_version bigint NOT NULL,
    proved_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (slot_name, table_name, lower_bound, upper_bound)
);

CREATE TABLE IF NOT EXISTS :"archive".finding (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    table_name text NOT NULL,
    partition_name text NOT NULL,
    reason text NOT NULL,
    evidence jsonb NOT NULL,
    found_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_found_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    times bigint NOT NULL DEFAULT 1,
    resolved_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS finding_open ON :"archive".finding (kind, table_name, partition_name) WHERE resolved_at IS NULL;

CREATE TABLE IF NOT EXISTS :"archive".queue (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    destination text,
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    requested_by text NOT NULL DEFAULT session_user,
    PRIMARY KEY (schema_name, table_name)
);

GRANT SELECT ON TABLE :"archive".receipt, :"archive".proof, :"archive".finding, :"archive".queue TO :"login";

DO $lakebed$
DECLARE
    archive text := pg_catalog.current_setting('lakebed.archive');
    owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = archive);
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['config', 'receipt', 'proof', 'finding', 'queue'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %I.%I OWNER TO %I', archive, name, owner);
        EXECUTE pg_catalog.format('COMMENT ON TABLE %I.%I IS %L', archive, name, 'lakebed sql/09, version 3');
    END LOOP;
END
$lakebed$;
