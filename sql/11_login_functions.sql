-- lakebed sql/11, version 2: what the login may do to a detached table, and nothing else (R2, R3).
--
-- The functions run with the rights of the schema's owner, because a reader may neither lock a table nor drop it. Each looks at the table
-- again under the lock. The one DROP TABLE of lakebed is in lakebed_drop, in the transaction that counted and that writes the receipt.
--
-- By hand:  psql -v login=lakebed -v archive=archive -f 11_login_functions.sql

SET search_path = '';

CREATE OR REPLACE FUNCTION :"archive".lakebed_refuses(p_relation oid, p_root oid)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, :"archive", pg_temp AS $body$
    -- NULL for a detached partition of the root, else why it is none (R5).
    SELECT CASE
        WHEN c.oid IS NULL THEN 'there is no such table'
        WHEN c.relnamespace <> (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = 'receipt'::regclass) THEN 'it is not in the archive schema'
        WHEN c.relkind <> 'r' THEN 'it is not a plain table'
        WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table WHERE partrelid = p_root) THEN 'what it was a partition of is not a partitioned table'
        WHEN c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid OR inhrelid = c.oid) THEN 'it is attached'
        WHEN (SELECT pg_catalog.array_agg((attname, atttypid, atttypmod)::text ORDER BY attname) FROM pg_catalog.pg_attribute
              WHERE attrelid = p_relation AND attnum > 0 AND NOT attisdropped)
             IS DISTINCT FROM
             (SELECT pg_catalog.array_agg((attname, atttypid, atttypmod)::text ORDER BY attname) FROM pg_catalog.pg_attribute
              WHERE attrelid = p_root AND attnum > 0 AND NOT attisdropped) THEN 'its columns are not those of the table that it was a partition of'
        END
    FROM (SELECT p_relation AS oid) wanted LEFT JOIN pg_catalog.pg_class c ON c.oid = wanted.oid
$body$;

CREATE OR REPLACE FUNCTION :"archive".lakebed_freeze(p_relation oid, p_root oid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, :"archive", pg_temp AS $body$
DECLARE
    refused text := lakebed_refuses(p_relation, p_root);
BEGIN
    IF refused IS NULL THEN
        EXECUTE pg_catalog.format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', p_relation::regclass);
        -- While the lock was waited for, the name may have become another table's, or the table may have been attached again.
        refused := lakebed_refuses(p_relation, p_root);
        IF refused IS NULL AND NOT lakebed_holds(p_relation) THEN
            refused := 'it was replaced by another table just now';
        END IF;
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'cannot freeze the table of oid %: %', p_relation, refused USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$body$;

CREATE OR REPLACE FUNCTION :"archive".lakebed_holds(p_relation oid)
RETURNS boolean LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
    -- Whether this session holds the lock that freezes.
    SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                   WHERE locktype = 'relation' AND relation = p_relation AND pid = pg_catalog.pg_backend_pid() AND granted
                     AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                     AND mode = 'ShareRowExclusiveLock')
$body$;

-- The next link of the chain; called by the functions that know what it may say, and granted to nobody.
CREATE OR REPLACE FUNCTION :"archive".lakebed_append(p_receipt jsonb)
RETURNS TABLE (sequence bigint, hash text)
LANGUAGE plpgsql SET search_path = pg_catalog, :"archive", pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
    last_receipt record;
    complete jsonb;
BEGIN
    -- One at a time from here to the commit, so that the chain never forks.
    LOCK TABLE receipt IN SHARE ROW EXCLUSIVE MODE;
    SELECT r.sequence, r.hash INTO last_receipt FROM receipt r ORDER BY r.sequence DESC LIMIT 1;
    sequence := coalesce(last_receipt.sequence, 0) + 1;
    complete := p_receipt || pg_catalog.jsonb_build_object(
        'sequence', sequence, 'recorded_at', pg_catalog.clock_timestamp(), 'recorded_by', session_user::text,
        'previous_hash', coalesce(last_receipt.hash, ''));
    hash := pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(complete::text, 'UTF8')), 'hex');
    INSERT INTO receipt SELECT filled.* FROM pg_catalog.jsonb_populate_record(NULL::receipt, complete
        || pg_catalog.jsonb_build_object('content', complete::text, 'hash', hash)) filled;
    RETURN NEXT;
END
$body$;

-- p_receipt has the keys of the receipt's columns, and whatever else is to be proved later: files, bounds as PostgreSQL has them.
CREATE OR REPLACE FUNCTION :"archive".lakebed_drop(p_relation oid, p_root oid, p_receipt jsonb)
RETURNS TABLE (sequence bigint, hash text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, :"archive", pg_temp SET TimeZone = 'UTC' SET row_security = off AS $body$
DECLARE
    refused text := lakebed_refuses(p_relation, p_root);
    full_name text := (SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_relation);
    root_name text := (SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p_root);
    counted bigint;
BEGIN
    IF refused IS NULL AND NOT lakebed_holds(p_relation) THEN
        refused := 'this transaction has not frozen it';
    END IF;
    IF refused IS NULL THEN
        EXECUTE pg_catalog.format('SELECT count(*) FROM ONLY %s', p_relation::regclass) INTO counted;
        IF counted IS DISTINCT FROM (p_receipt ->> 'rows')::bigint THEN
            refused := 'it has ' || counted::text || ' rows, and the receipt says otherwise';
        ELSIF p_receipt ->> 'table_name' IS DISTINCT FROM root_name OR p_receipt ->> 'partition_name' IS DISTINCT FROM full_name THEN
            refused := 'the receipt is for another table';
        END IF;
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'cannot drop the table of oid %: %', p_relation, refused USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT a.sequence, a.hash INTO sequence, hash FROM lakebed_append(p_receipt || pg_catalog.jsonb_build_object(
        'kind', 'dropped', 'relation_oid', p_relation::bigint)) a;
    DELETE FROM queue q WHERE q.schema_name || '.' || q.table_name = full_name;
    EXECUTE pg_catalog.format('DROP TABLE %s', p_relation::regclass);
    RETURN NEXT;
END
$body$;

-- A late row for a detached day makes partman create a partition of the same name, and its retention stops at the table that waits here
-- under that name. So the waiting table gives its name up: it becomes name__2, or with the next number that is free.
CREATE OR REPLACE FUNCTION :"archive".lakebed_rename(p_relation oid, p_root oid)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, :"archive", pg_temp AS $body$
DECLARE
    refused text := lakebed_refuses(p_relation, p_root);
    home oid := (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = p_relation);
    old_name text := (SELECT relname FROM pg_catalog.pg_class WHERE oid = p_relation);
    parts text[] := pg_catalog.regexp_match(old_name, '^(.+)(_p[0-9][0-9_]*?)(?:__[0-9]+)?$');
    stem text := parts[1];
    number integer := 2;
    new_name text;
BEGIN
    IF refused IS NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(p_root) t JOIN pg_catalog.pg_class c ON c.oid = t.relid
                                       WHERE t.isleaf AND c.relname = old_name) THEN
        refused := 'no partition of its name is attached';
    ELSIF refused IS NULL AND parts IS NULL THEN
        refused := 'its name has no date';
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'cannot rename the table of oid %: %', p_relation, refused USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    LOOP
        WHILE pg_catalog.octet_length(stem || parts[2] || '__' || number::text) > 63 LOOP
            stem := pg_catalog.left(stem, -1);
        END LOOP;
        new_name := stem || parts[2] || '__' || number::text;
        EXIT WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = home AND relname = new_name);
        number := number + 1;
    END LOOP;
    EXECUTE pg_catalog.format('ALTER TABLE %s RENAME TO %I', p_relation::regclass, new_name);
    RETURN new_name;
END
$body$;

SELECT pg_catalog.set_config('lakebed.archive', :'archive', false), pg_catalog.set_config('lakebed.login', :'login', false);
DO $lakebed$
DECLARE
    archive text := pg_catalog.current_setting('lakebed.archive');
    owner text := (SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = archive);
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY['lakebed_refuses(oid, oid)', 'lakebed_holds(oid)', 'lakebed_append(jsonb)', 'lakebed_freeze(oid, oid)',
        'lakebed_drop(oid, oid, jsonb)', 'lakebed_rename(oid, oid)'] LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %I.%s OWNER TO %I', archive, signature, owner);
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %I.%s FROM PUBLIC', archive, signature);
        IF signature <> 'lakebed_append(jsonb)' THEN
            EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %I.%s TO %I', archive, signature, pg_catalog.current_setting('lakebed.login'));
        END IF;
        EXECUTE pg_catalog.format('COMMENT ON FUNCTION %I.%s IS %L', archive, signature, 'lakebed sql/11, version 2');
    END LOOP;
END
$lakebed$;
