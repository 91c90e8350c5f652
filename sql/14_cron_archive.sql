-- lakebed sql/14, version 1, in the database where pg_cron lives (usually postgres): the archive guide's nightly job at 03:00 UTC (Step 4).
--
-- The function asks lakebed to look and drops nothing; run has a schedule of its own, so the job is for those who watch pg_cron's runs.
-- Nothing is registered if any job calls the function already.
--
-- By hand:  psql -d postgres -v database=idpserver -v command='SELECT * FROM archive.process_archived_partitions(p_dry_run := FALSE)'
--                -f 14_cron_archive.sql

SET search_path = '';
SELECT cron.schedule_in_database(
    CASE WHEN EXISTS (SELECT FROM cron.job WHERE jobname = 'archive-processing')
         THEN 'archive-processing-' || :'database' ELSE 'archive-processing' END,
    '0 3 * * *', :'command', :'database')
WHERE NOT EXISTS (SELECT FROM cron.job WHERE database = :'database' AND command ILIKE '%process\_archived\_partitions%');
