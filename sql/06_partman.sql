-- lakebed sql/06, version 2: the login may read partman's configuration, which says which tables are archived, when and where.
--
-- By hand:  psql -v login=lakebed -v partman=partman -f 06_partman.sql

SET search_path = '';
GRANT USAGE ON SCHEMA :"partman" TO :"login";
GRANT SELECT ON TABLE :"partman".part_config TO :"login";
