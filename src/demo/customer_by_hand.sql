-- The same leaves, named as pg_partman 5 names them, for a server that lacks it. Settings as in customer_partman.sql.
SET ROLE idp;
DO $$
DECLARE
    today date := current_setting('demo.today')::date;
    first_day date := today - current_setting('demo.history_days')::int;
    last_day date := today + current_setting('demo.premake')::int;
    parent record;
    leaf date;
BEGIN
    FOR parent IN
        SELECT * FROM (VALUES
            ('security_event', 'day'), ('security_event_hook_results', 'day'), ('statistics_daily_users', 'day'),
            ('statistics_monthly_users', 'month'), ('statistics_yearly_users', 'month')) AS parents (name, unit)
    LOOP
        EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I DEFAULT', parent.name || '_default', parent.name);
        FOR leaf IN
            SELECT generate_series(date_trunc(parent.unit, first_day::timestamp), last_day::timestamp,
                                   ('1 ' || parent.unit)::interval)::date
        LOOP
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                           parent.name || to_char(leaf, '"_p"YYYYMMDD'), parent.name,
                           leaf, (leaf + ('1 ' || parent.unit)::interval)::date);
        END LOOP;
    END LOOP;
END
$$;
RESET ROLE;
