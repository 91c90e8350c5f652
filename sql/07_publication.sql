-- lakebed sql/07, version 2, once a table: the publication of the root.
--
-- publish_via_partition_root sends rows under the root's name, whichever leaf they are in, so that partitions may come and go;
-- publishing the leaves instead would lose the rows of new ones. A publication that exists only gets the table; nothing is removed.
--
-- By hand:  psql -v publication=lakebed -v schema=public -v table=security_event -f 07_publication.sql

SET search_path = '';
SELECT pg_catalog.set_config('lakebed.publication', :'publication', false),
       pg_catalog.set_config('lakebed.schema', :'schema', false), pg_catalog.set_config('lakebed.table', :'table', false);

DO $lakebed$
DECLARE
    publication text := pg_catalog.current_setting('lakebed.publication');
    root text := pg_catalog.format('%I.%I', pg_catalog.current_setting('lakebed.schema'),
                                   pg_catalog.current_setting('lakebed.table'));
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = publication) THEN
        EXECUTE pg_catalog.format('CREATE PUBLICATION %I FOR TABLE %s WITH (publish_via_partition_root = true)', publication, root);
    ELSIF NOT EXISTS (SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = publication
                      AND schemaname = pg_catalog.current_setting('lakebed.schema')
                      AND tablename = pg_catalog.current_setting('lakebed.table')) THEN
        EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE %s', publication, root);
    END IF;
END
$lakebed$;
