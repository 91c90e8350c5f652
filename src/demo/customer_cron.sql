-- Step 4 of the guide, in database postgres, where pg_cron lives: the maintenance that detaches what is older than 90 days.
-- The job at 03:00, which exports and drops, is what lakebed is for.
CREATE EXTENSION pg_cron;
SELECT cron.schedule_in_database(
    'partman-maintenance', '0 2 * * *', $$CALL partman.run_maintenance_proc()$$, 'idpserver', 'idp');
