-- lakebed sql/12, version 3: what the login writes down, in tables that it can only read otherwise.
--
-- The functions run with the rights of the schema's owner. None of them locks, drops or renames a detached table. As in sql/10, the
-- schema is on no search_path.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 12_login_records.sql

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.archive', :'archive', false), pg_catalog.set_config('lakebed.login', :'login', false);

DO $lakebed$
DECLARE
    archive text := pg_catalog.quote_ident(pg_catalog.current_setting('lakebed.archive'));
    owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace
                   WHERE nspname = pg_catalog.current_setting('lakebed.archive'));
    signature text;
BEGIN

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_note(
    p_kind text, p_table_name text, p_partition_name text, p_reason text, p_evidence jsonb)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    INSERT INTO @archive@.finding AS known (kind, table_name, partition_name, reason, evidence)
    VALUES (p_kind, p_table_name, p_partition_name, p_reason, p_evidence)
    ON CONFLICT (kind, table_name, partition_name) WHERE resolved_at IS NULL
    DO UPDATE SET reason = excluded.reason, evidence = excluded.evidence, last_found_at = now(), times = known.times + 1
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_resolve(p_table_name text, p_partition_name text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    UPDATE @archive@.finding SET resolved_at = now()
    WHERE table_name = p_table_name AND partition_name = p_partition_name AND resolved_at IS NULL
$body$
$create$, '@archive@', archive);

-- What was found of detached tables that are gone is settled, whoever dropped them.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_settle()
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    UPDATE @archive@.finding SET resolved_at = now()
    WHERE resolved_at IS NULL AND kind <> 'early_proof'
      AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname::text || '.' || c.relname::text = partition_name)
$body$
$create$, '@archive@', archive);

-- How the last balance of a day went that is not dropped yet, or was touched since it was dropped.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_prove(p_proof jsonb)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    INSERT INTO @archive@.proof SELECT filled.* FROM jsonb_populate_record(NULL::@archive@.proof, p_proof
        || jsonb_build_object('proved_at', now())) filled
    ON CONFLICT (slot_name, table_name, lower_bound, upper_bound) DO UPDATE SET (balanced, rows, digest, lake_rows, lake_digest, lake_files,
        delta_version, proved_at) = (excluded.balanced, excluded.rows, excluded.digest, excluded.lake_rows, excluded.lake_digest,
        excluded.lake_files, excluded.delta_version, excluded.proved_at)
$body$
$create$, '@archive@', archive);

-- A receipt that the lake has and this database lost, as one that was restored has. It must be the next link of the chain, to the last
-- bit. True if it was missing here.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_restore(p_content text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
    again jsonb := p_content::jsonb;
    new_hash text := encode(sha256(convert_to(p_content, 'UTF8')), 'hex');
    last_receipt record;
BEGIN
    LOCK TABLE @archive@.receipt IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM @archive@.receipt r WHERE r.sequence = (again ->> 'sequence')::bigint AND r.hash = new_hash) THEN
        RETURN false;
    END IF;
    SELECT r.sequence, r.hash INTO last_receipt FROM @archive@.receipt r ORDER BY r.sequence DESC LIMIT 1;
    IF (again ->> 'sequence')::bigint IS DISTINCT FROM coalesce(last_receipt.sequence, 0) + 1
       OR again ->> 'previous_hash' IS DISTINCT FROM coalesce(last_receipt.hash, '') THEN
        RAISE EXCEPTION 'cannot restore receipt %: it is not the next link of the chain here', again ->> 'sequence'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO @archive@.receipt SELECT filled.* FROM jsonb_populate_record(NULL::@archive@.receipt, again
        || jsonb_build_object('content', p_content, 'hash', new_hash)) filled;
    RETURN true;
END
$body$
$create$, '@archive@', archive);

-- Rows of days that are dropped were erased from the lake: a receipt of fewer rows than none, so that the ledger balances. Once an
-- erasure and day.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_adjust(p_receipt jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
BEGIN
    IF p_receipt ->> 'kind' IS DISTINCT FROM 'erased' OR coalesce((p_receipt ->> 'rows')::bigint, 1) > 0
       OR coalesce(p_receipt ->> 'reason', '') = '' OR coalesce(p_receipt ->> 'erasure', '') = '' THEN
        RAISE EXCEPTION 'cannot write the receipt down: it is none of an erasure' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    LOCK TABLE @archive@.receipt IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM @archive@.receipt r WHERE r.kind = 'erased' AND r.table_name = p_receipt ->> 'table_name'
                   AND r.partition_name = p_receipt ->> 'partition_name' AND r.content::jsonb ->> 'erasure' = p_receipt ->> 'erasure') THEN
        PERFORM @archive@.lakebed_append(p_receipt);
    END IF;
END
$body$
$create$, '@archive@', archive);

-- What the guide's functions asked for was looked at.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_served(p_schema_name text, p_table_name text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
    DELETE FROM @archive@.queue WHERE schema_name = p_schema_name AND table_name = p_table_name
$body$
$create$, '@archive@', archive);

FOREACH signature IN ARRAY ARRAY['lakebed_note(text, text, text, text, jsonb)', 'lakebed_resolve(text, text)', 'lakebed_settle()',
    'lakebed_prove(jsonb)', 'lakebed_restore(text)', 'lakebed_adjust(jsonb)', 'lakebed_served(text, text)'] LOOP
    EXECUTE pg_catalog.format('ALTER FUNCTION %s.%s OWNER TO %I', archive, signature, owner);
    EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s.%s FROM PUBLIC', archive, signature);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s.%s TO %I', archive, signature, pg_catalog.current_setting('lakebed.login'));
    EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s.%s IS %L', archive, signature, 'lakebed sql/12, version 3');
END LOOP;

END
$lakebed$;
