-- lakebed sql/05, version 2, once a schema and role that runs partman: leaves that partman makes later are readable too.
--
-- Default privileges belong to the role that creates the table, so they are given for the role that runs partman (the job's user,
-- the owner of the leaves). They cover every table which that role creates in this schema from now on.
--
-- By hand:  psql -v login=lakebed -v schema=public -v creator=idp -f 05_future_leaves.sql

SET search_path = '';
ALTER DEFAULT PRIVILEGES FOR ROLE :"creator" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"login";
