-- pg_partman as the first customer runs it, with the words of version 4 (Debian ships 4.7.2) or 5 (upstream).
-- `demo.premake`, `demo.history_days` and `demo.today` are set by the caller. Creating the leaves of the history does not
-- run retention; the job at 02:00 UTC does.

CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;
GRANT ALL ON SCHEMA partman TO idp;
GRANT ALL ON ALL TABLES IN SCHEMA partman TO idp;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partman TO idp;
SET ROLE idp;

DO $$
DECLARE
    version_5 boolean := (SELECT extversion ~ '^([5-9]|\d\d)' FROM pg_extension WHERE extname = 'pg_partman');
    today date := current_setting('demo.today')::date;
    first_day date := today - current_setting('demo.history_days')::int;
    daily_premake int := current_setting('demo.premake')::int;
    -- Monthly leaves reach as far ahead as the daily ones.
    monthly_premake int := daily_premake / 28 + 1;
    parent record;
BEGIN
    FOR parent IN
        SELECT * FROM (VALUES
            ('public.security_event', 'created_at', false),
            ('public.security_event_hook_results', 'created_at', false),
            ('public.statistics_daily_users', 'stat_date', false),
            ('public.statistics_monthly_users', 'stat_month', true),
            ('public.statistics_yearly_users', 'stat_year', true)) AS parents (name, control, monthly)
    LOOP
        IF version_5 THEN
            EXECUTE 'SELECT partman.create_parent(p_parent_table := $1, p_control := $2, p_interval := $3,
                         p_premake := $4, p_start_partition := $5)'
            USING parent.name, parent.control, CASE WHEN parent.monthly THEN '1 month' ELSE '1 day' END,
                  CASE WHEN parent.monthly THEN monthly_premake ELSE daily_premake END, first_day::text;
        ELSE
            EXECUTE 'SELECT partman.create_parent(p_parent_table := $1, p_control := $2, p_type := ''native'',
                         p_interval := $3, p_premake := $4, p_start_partition := $5)'
            USING parent.name, parent.control, CASE WHEN parent.monthly THEN 'monthly' ELSE 'daily' END,
                  CASE WHEN parent.monthly THEN monthly_premake ELSE daily_premake END, first_day::text;
        END IF;
    END LOOP;
END
$$;

-- Step 2 of the guide.
UPDATE partman.part_config
SET infinite_time_partitions = true,
    retention = '90 days',
    retention_keep_table = true,
    retention_keep_index = false,
    retention_schema = 'archive'
WHERE parent_table LIKE 'public.%';
RESET ROLE;
