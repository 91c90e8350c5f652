-- lakebed sql/13, version 1, once a table that partman manages: old partitions are detached into the archive schema and kept (Step 2 of
-- the archive guide). Only with lakebed init --retention.
--
-- By hand:  psql -v partman=partman -v table_name=public.security_event -v retention='90 days' -v archive=archive -f 13_retention.sql

SET search_path = '';
UPDATE :"partman".part_config
SET retention = :'retention', retention_keep_table = true, retention_schema = :'archive'
WHERE parent_table = :'table_name';
