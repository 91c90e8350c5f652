-- lakebed sql/11, version 3: what the login may do to a detached table, and nothing else (R2, R3).
--
-- The functions run with the rights of the schema's owner, because a reader may neither lock a table nor drop it. Each looks at the table
-- again under the lock. The one DROP TABLE of lakebed is in lakebed_drop, in the transaction that counted and that writes the receipt.
--
-- As in sql/10, the schema is on no search_path: others may create functions and operators there.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 11_login_functions.sql

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
CREATE OR REPLACE FUNCTION @archive@.lakebed_refuses(p_relation oid, p_root oid)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    -- NULL for a detached partition of the root, else why it is none (R5). The root has to be published: whoever calls this names it, and
    -- may make tables of its own, temporary ones at least, but can publish none of them.
    SELECT CASE
        WHEN c.oid IS NULL THEN 'there is no such table'
        WHEN c.relnamespace <> (SELECT relnamespace FROM pg_class WHERE oid = '@archive@.receipt'::regclass::oid) THEN 'it is not in the archive schema'
        WHEN c.relkind <> 'r' THEN 'it is not a plain table'
        WHEN c.relname::text IN ('config', 'receipt', 'proof', 'finding', 'queue') THEN 'it is a table of lakebed'
        WHEN r.oid IS NULL OR r.relkind <> 'p' OR r.relpersistence <> 'p' THEN 'what it was a partition of is not a partitioned table'
        WHEN NOT EXISTS (SELECT FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
                         WHERE n.oid = r.relnamespace AND t.tablename = r.relname) THEN 'what it was a partition of is not published'
        WHEN c.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid OR inhrelid = c.oid) THEN 'it is attached'
        WHEN NOT (stem.name <> c.relname::text AND (stem.name = r.relname::text
                  OR (octet_length(c.relname::text) = 63 AND starts_with(r.relname::text, stem.name)))) THEN 'its name is none of a partition'
        WHEN (SELECT string_agg(attname::text || ' ' || atttypid::text || ' ' || atttypmod::text, ',' ORDER BY attname::text) FROM pg_attribute
              WHERE attrelid = p_relation AND attnum > 0 AND NOT attisdropped)
             IS DISTINCT FROM
             (SELECT string_agg(attname::text || ' ' || atttypid::text || ' ' || atttypmod::text, ',' ORDER BY attname::text) FROM pg_attribute
              WHERE attrelid = p_root AND attnum > 0 AND NOT attisdropped) THEN 'its columns are not those of the table that it was a partition of'
        WHEN c.relhasrules THEN 'it has rules'
        END
    FROM (SELECT p_relation AS oid, p_root AS root) wanted LEFT JOIN pg_class c ON c.oid = wanted.oid LEFT JOIN pg_class r ON r.oid = wanted.root
    LEFT JOIN LATERAL (SELECT regexp_replace(c.relname::text, '_p[0-9][0-9wq_]*$', '') AS name) stem ON true
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_holds(p_relation oid)
RETURNS boolean LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
    -- Whether this session holds the lock that freezes.
    SELECT EXISTS (SELECT FROM pg_locks
                   WHERE locktype = 'relation' AND relation = p_relation AND pid = pg_backend_pid() AND granted
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                     AND mode = 'ShareRowExclusiveLock')
$body$
$create$, '@archive@', archive);

EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_freeze(p_relation oid, p_root oid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    refused text := @archive@.lakebed_refuses(p_relation, p_root);
BEGIN
    IF refused IS NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', p_relation::regclass);
        -- While the lock was waited for, the name may have become another table's, or the table may have been attached again.
        refused := @archive@.lakebed_refuses(p_relation, p_root);
        IF refused IS NULL AND NOT @archive@.lakebed_holds(p_relation) THEN
            refused := 'it was replaced by another table just now';
        END IF;
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'cannot freeze the table of oid %: %', p_relation, refused USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$body$
$create$, '@archive@', archive);

-- The next link of the chain; called by the functions that know what it may say, and granted to nobody.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_append(p_receipt jsonb)
RETURNS TABLE (sequence bigint, hash text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
    last_receipt record;
    complete jsonb;
BEGIN
    -- One at a time from here to the commit, so that the chain never forks.
    LOCK TABLE @archive@.receipt IN SHARE ROW EXCLUSIVE MODE;
    SELECT r.sequence, r.hash INTO last_receipt FROM @archive@.receipt r ORDER BY r.sequence DESC LIMIT 1;
    sequence := coalesce(last_receipt.sequence, 0) + 1;
    complete := p_receipt || jsonb_build_object(
        'sequence', sequence, 'recorded_at', clock_timestamp(), 'recorded_by', session_user::text,
        'previous_hash', coalesce(last_receipt.hash, ''));
    hash := encode(sha256(convert_to(complete::text, 'UTF8')), 'hex');
    INSERT INTO @archive@.receipt SELECT filled.* FROM jsonb_populate_record(NULL::@archive@.receipt, complete
        || jsonb_build_object('content', complete::text, 'hash', hash)) filled;
    RETURN NEXT;
END
$body$
$create$, '@archive@', archive);

-- p_receipt has the keys of the receipt's columns, and whatever else is to be proved later: files, bounds as PostgreSQL has them.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_drop(p_relation oid, p_root oid, p_receipt jsonb)
RETURNS TABLE (sequence bigint, hash text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET row_security = off AS $body$
DECLARE
    refused text := @archive@.lakebed_refuses(p_relation, p_root);
    full_name text := (SELECT n.nspname::text || '.' || c.relname::text FROM pg_class c
                       JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_relation);
    root_name text := (SELECT n.nspname::text || '.' || c.relname::text FROM pg_class c
                       JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_root);
    counted bigint;
BEGIN
    IF refused IS NULL AND NOT @archive@.lakebed_holds(p_relation) THEN
        refused := 'this transaction has not frozen it';
    END IF;
    IF refused IS NULL THEN
        EXECUTE format('SELECT count(*) FROM ONLY %s', p_relation::regclass) INTO counted;
        IF counted IS DISTINCT FROM (p_receipt ->> 'rows')::bigint THEN
            refused := 'it has ' || counted::text || ' rows, and the receipt says otherwise';
        ELSIF p_receipt ->> 'table_name' IS DISTINCT FROM root_name OR p_receipt ->> 'partition_name' IS DISTINCT FROM full_name THEN
            refused := 'the receipt is for another table';
        END IF;
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'cannot drop the table of oid %: %', p_relation, refused USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT a.sequence, a.hash INTO sequence, hash FROM @archive@.lakebed_append(p_receipt || jsonb_build_object(
        'kind', 'dropped', 'relation_oid', p_relation::bigint)) a;
    DELETE FROM @archive@.queue q WHERE q.schema_name || '.' || q.table_name = full_name;
    EXECUTE format('DROP TABLE %s', p_relation::regclass);
    RETURN NEXT;
END
$body$
$create$, '@archive@', archive);

-- A late row for a detached day makes partman create a partition of the same name, and its retention stops at the table that waits here
-- under that name. So the waiting table gives its name up: it becomes name__2, or with the next number that is free.
EXECUTE pg_catalog.replace($create$
CREATE OR REPLACE FUNCTION @archive@.lakebed_rename(p_relation oid, p_root oid)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    refused text := @archive@.lakebed_refuses(p_relation, p_root);
    home oid := (SELECT relnamespace FROM pg_class WHERE oid = p_relation);
    old_name text := (SELECT relname::text FROM pg_class WHERE oid = p_relation);
    parts text[] := regexp_match(old_name, '^(.+)(_p[0-9][0-9_]*?)(?:__[0-9]+)?$');
    stem text := parts[1];
    number integer := 2;
    new_name text;
BEGIN
    IF refused IS NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', p_relation::regclass);
        refused := @archive@.lakebed_refuses(p_relation, p_root);
        IF refused IS NULL AND old_name IS DISTINCT FROM (SELECT relname::text FROM pg_class WHERE oid = p_relation) THEN
            refused := 'it has another name just now';
        END IF;
    END IF;
    IF refused IS NULL AND NOT EXISTS (
        WITH RECURSIVE tree (oid) AS (SELECT p_root UNION ALL SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid)
        SELECT FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind <> 'p' AND c.relname::text = old_name) THEN
        refused := 'no partition of its name is attached';
    ELSIF refused IS NULL AND parts IS NULL THEN
        refused := 'its name has no date';
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'cannot rename the table of oid %: %', p_relation, refused USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    LOOP
        WHILE octet_length(stem || parts[2] || '__' || number::text) > 63 LOOP
            stem := left(stem, -1);
        END LOOP;
        new_name := stem || parts[2] || '__' || number::text;
        EXIT WHEN NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = home AND relname::text = new_name);
        number := number + 1;
    END LOOP;
    EXECUTE format('ALTER TABLE %s RENAME TO %I', p_relation::regclass, new_name);
    RETURN new_name;
END
$body$
$create$, '@archive@', archive);

FOREACH signature IN ARRAY ARRAY['lakebed_refuses(oid, oid)', 'lakebed_holds(oid)', 'lakebed_append(jsonb)', 'lakebed_freeze(oid, oid)',
    'lakebed_drop(oid, oid, jsonb)', 'lakebed_rename(oid, oid)'] LOOP
    EXECUTE pg_catalog.format('ALTER FUNCTION %s.%s OWNER TO %I', archive, signature, owner);
    EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s.%s FROM PUBLIC', archive, signature);
    IF signature NOT IN ('lakebed_append(jsonb)', 'lakebed_refuses(oid, oid)', 'lakebed_holds(oid)') THEN
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s.%s TO %I', archive, signature, pg_catalog.current_setting('lakebed.login'));
    END IF;
    EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s.%s IS %L', archive, signature, 'lakebed sql/11, version 3');
END LOOP;

END
$lakebed$;
