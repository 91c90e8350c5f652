-- lakebed sql/07, version 1, once a table: the publication of the root.
--
-- publish_via_partition_root sends rows under the root's name, whichever leaf they are in, so that partitions may come and go;
-- publishing the leaves instead would lose the rows of new ones. A publication that exists only gets the table; nothing is removed.
--
-- By hand:  psql -v publication=lakebed -v schema=public -v table=security_event -f 07_publication.sql

SELECT set_config('lakebed.publication', :'publication', false), set_config('lakebed.schema', :'schema', false),
       set_config('lakebed.table', :'table', false);

DO $lakebed$
DECLARE
    publication text := current_setting('lakebed.publication');
    root text := format('%I.%I', current_setting('lakebed.schema'), current_setting('lakebed.table'));
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = publication) THEN
        EXECUTE format('CREATE PUBLICATION %I FOR TABLE %s WITH (publish_via_partition_root = true)', publication, root);
    ELSIF NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = publication
                      AND schemaname = current_setting('lakebed.schema') AND tablename = current_setting('lakebed.table')) THEN
        EXECUTE format('ALTER PUBLICATION %I ADD TABLE %s', publication, root);
    END IF;
END
$lakebed$;
