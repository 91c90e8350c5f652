-- lakebed sql/08, version 2, in the database where pg_cron lives (usually postgres): partman's maintenance at 02:00 UTC, as in the guide.
--
-- Nothing is registered if any job already runs maintenance for the database. The job runs as whoever registers it. pg_cron
-- would overwrite a job of the same name and user, so a name that another database's job has is not used again.
--
-- By hand:  psql -d postgres -v database=idpserver -v command='CALL partman.run_maintenance_proc()' -f 08_cron.sql

SET search_path = '';
SELECT cron.schedule_in_database(
    CASE WHEN EXISTS (SELECT FROM cron.job WHERE jobname = 'partman-maintenance')
         THEN 'partman-maintenance-' || :'database' ELSE 'partman-maintenance' END,
    '0 2 * * *', :'command', :'database')
WHERE NOT EXISTS (SELECT FROM cron.job WHERE database = :'database' AND command ILIKE '%run\_maintenance%');
