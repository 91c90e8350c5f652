//! The control plane against a real PostgreSQL 15: what the catalogs say, and what `init`'s SQL grants and no more.

use lakebed::base::{ColumnType, PartitionBy, TableName};
use lakebed::demo::{Cluster, ClusterOptions, Connection};
use lakebed::source::{
    self, BoundAlignment, Installation, LeafBound, ReplicaIdentity, SourceError, TableFacts, TableRules,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::Client;

/// A throw-away cluster and its superuser's session, prepared as every session of the control plane is.
async fn cluster() -> (Cluster, Connection) {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    source::prepare_session(&client).await.unwrap();
    (cluster, client)
}

/// A session of any login over TCP, where the server insists on the password.
async fn sign_in(cluster: &Cluster, login: &str, password: &str) -> Connection {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let (login, password) = (encoded(login), encoded(password));
    let url = format!("postgresql://{login}:{password}@127.0.0.1:{}/postgres", cluster.port());
    Connection::open(&url).await.unwrap()
}

fn rules(schema: &str, name: &str, partition_column: &str) -> TableRules {
    TableRules {
        table: TableName::new(schema, name),
        partition_column: partition_column.into(),
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        text_columns: Vec::new(),
        lake_columns: Default::default(),
    }
}

async fn shape_error(client: &Client, schema: &str, name: &str, column: &str) -> SourceError {
    source::table(client, &rules(schema, name, column), false).await.unwrap_err()
}

const TABLES: &str = r#"
    CREATE TYPE public.mood AS ENUM ('calm', 'tense');
    CREATE DOMAIN public.money_amount AS numeric(12, 2);
    CREATE DOMAIN public.price AS public.money_amount CHECK (VALUE >= 0);
    CREATE DOMAIN public.feeling AS public.mood;
    CREATE TABLE public.security_event (
        id uuid NOT NULL, gone text, type varchar(255) NOT NULL, price public.price, feeling public.feeling,
        doubled numeric GENERATED ALWAYS AS (price * 2) STORED, tags text[], detail jsonb NOT NULL,
        created_at timestamp NOT NULL DEFAULT now(), PRIMARY KEY (id, created_at)
    ) PARTITION BY RANGE (created_at);
    ALTER TABLE public.security_event DROP COLUMN gone;
    CREATE TABLE public.security_event_p2026_01_01 PARTITION OF public.security_event
        FOR VALUES FROM ('2026-01-01') TO ('2026-01-02');
    CREATE TABLE public.security_event_p2026_01_02 PARTITION OF public.security_event
        FOR VALUES FROM ('2026-01-02') TO ('2026-01-02 12:00');
    CREATE TABLE public.security_event_default PARTITION OF public.security_event DEFAULT;
    ALTER TABLE public.security_event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON public.security_event USING (current_setting('app.tenant_id') = 'x');
    CREATE SCHEMA "監査 Schema";
    CREATE TABLE "監査 Schema"."Event""s" ("Id" int8 PRIMARY KEY, "日付" timestamptz NOT NULL, "it's" text);
    ALTER TABLE "監査 Schema"."Event""s" REPLICA IDENTITY FULL;
    CREATE TABLE public.keyless (id int8, day date NOT NULL);
    CREATE TABLE public.dateless (id int8 PRIMARY KEY, day date, name text);
    CREATE UNLOGGED TABLE public.unlogged (id int8 PRIMARY KEY, day date NOT NULL);
    CREATE VIEW public.seen AS SELECT 1 AS id;
"#;

#[tokio::test]
async fn shapes_are_what_the_catalog_says() {
    let (_cluster, client) = cluster().await;
    client.batch_execute(TABLES).await.unwrap();

    let facts = source::table(&client, &rules("public", "security_event", "created_at"), false).await.unwrap();
    let columns: Vec<(&str, ColumnType)> =
        facts.shape.columns.iter().map(|column| (column.name.as_str(), column.column_type)).collect();
    let expected = [
        ("id", ColumnType::Uuid),
        ("type", ColumnType::Text),
        ("price", ColumnType::Decimal { precision: 12, scale: 2 }),
        ("feeling", ColumnType::Text),
        ("tags", ColumnType::ServerText),
        ("detail", ColumnType::Jsonb),
        ("created_at", ColumnType::Timestamp),
    ];
    assert_eq!(columns, expected, "the dropped and the generated column are left out, domains and enums resolved");
    assert!(facts.shape.columns[2].type_oid > 16_000, "a RELATION message carries the domain's own oid");
    assert_eq!((facts.shape.columns[2].type_modifier, facts.shape.columns[1].type_modifier), (-1, 259));
    assert_eq!((facts.shape.key.clone(), facts.shape.partition_column), (vec![0, 6], 6));
    assert!(facts.shape.columns[2].nullable && !facts.shape.columns[0].nullable);
    assert_eq!(facts.partitioning.as_ref().unwrap().key, [Some("created_at".to_owned())]);
    assert!(facts.row_security_enabled && facts.row_security_forced);
    let all = source::table(&client, &rules("public", "security_event", "created_at"), true).await.unwrap();
    assert_eq!(all.shape.columns[4].name, "doubled");

    let mut as_text = rules("public", "security_event", "created_at");
    as_text.text_columns = vec!["price".to_owned(), "detail".to_owned()];
    let kept = source::table(&client, &as_text, false).await.unwrap().shape;
    assert_eq!(
        (kept.columns[2].column_type, kept.columns[2].type_oid),
        (ColumnType::ServerText, facts.shape.columns[2].type_oid)
    );
    assert_eq!(kept.columns[5].column_type, ColumnType::Jsonb, "a lake string already");

    let odd = source::table(&client, &rules("監査 Schema", "Event\"s", "日付"), false).await.unwrap();
    let names: Vec<&str> = odd.shape.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["Id", "日付", "it's"]);
    assert_eq!((odd.replica_identity, odd.partitioning), (ReplicaIdentity::Full, None));
    assert!(source::leaves(&client, odd.oid, &odd.shape).await.unwrap().is_empty());
    assert!(!source::holds_rows(&client, &odd.shape.table, &[]).await.unwrap());

    leaves_and_rows(&client, &facts).await;
}

/// What names a row in an UPDATE or DELETE; the root's own setting does not reach its leaves.
#[tokio::test]
async fn identities_are_what_the_leaves_say() {
    let (_cluster, client) = cluster().await;
    client
        .batch_execute(
            "CREATE TABLE public.plain (id int8 PRIMARY KEY, day date NOT NULL, number int4 NOT NULL);
             CREATE TABLE public.event (id int8, day date, number int4 NOT NULL, PRIMARY KEY (id, day))
                 PARTITION BY RANGE (day);
             CREATE UNIQUE INDEX event_number ON public.event (number, day) INCLUDE (id);
             CREATE TABLE public.event_1 PARTITION OF public.event FOR VALUES FROM ('2026-01-01') TO ('2026-01-02');
             CREATE TABLE public.event_2 PARTITION OF public.event DEFAULT;",
        )
        .await
        .unwrap();
    let cases = [
        ("plain", "", vec![0], false),
        (
            "plain",
            "CREATE UNIQUE INDEX by_number ON public.plain (number, id);
                   ALTER TABLE public.plain REPLICA IDENTITY USING INDEX by_number",
            vec![2, 0],
            false,
        ),
        ("plain", "ALTER TABLE public.plain REPLICA IDENTITY FULL", vec![0], false),
        ("event", "", vec![0, 1], false),
        ("event", "ALTER TABLE public.event REPLICA IDENTITY USING INDEX event_number", vec![0, 1], false),
        (
            "event",
            "ALTER TABLE public.event_1 REPLICA IDENTITY USING INDEX event_1_number_day_id_idx",
            vec![0, 1],
            true,
        ),
        ("event", "ALTER TABLE public.event_2 REPLICA IDENTITY FULL", vec![2, 1], false),
        (
            "event",
            "ALTER TABLE public.event_2 REPLICA IDENTITY USING INDEX event_2_number_day_id_idx",
            vec![2, 1],
            false,
        ),
    ];
    for (table, sql, identity, is_ambiguous) in cases {
        client.batch_execute(sql).await.unwrap();
        let shape = source::table(&client, &rules("public", table, "day"), false).await.unwrap().shape;
        assert_eq!((shape.identity, shape.identity_is_ambiguous), (identity, is_ambiguous), "{sql}");
    }
}

async fn leaves_and_rows(client: &Client, facts: &TableFacts) {
    let leaves = source::leaves(client, facts.oid, &facts.shape).await.unwrap();
    let found: Vec<(&str, BoundAlignment)> = leaves
        .iter()
        .map(|leaf| {
            let alignment = leaf.bound.alignment(ColumnType::Timestamp, PartitionBy::Day, chrono_tz::UTC);
            (leaf.table.name.as_str(), alignment)
        })
        .collect();
    let expected = [
        ("security_event_default", BoundAlignment::Aligned),
        ("security_event_p2026_01_01", BoundAlignment::Aligned),
        ("security_event_p2026_01_02", BoundAlignment::InsideADay),
    ];
    assert_eq!(found, expected);
    assert_eq!(leaves[0].bound, LeafBound::Default);
    let table = &facts.shape.table;
    assert!(!source::holds_rows(client, table, &leaves).await.unwrap());
    let insert = "INSERT INTO public.security_event (id, type, detail, created_at)
                  VALUES (gen_random_uuid(), 't', '{}', '2030-01-01')";
    client.batch_execute(insert).await.unwrap();
    assert!(source::holds_rows(client, table, &leaves).await.unwrap(), "a row of the default partition counts");

    // Asked through the root, an owner under FORCE is an error and never a silent "empty".
    let owner = "CREATE ROLE owner_of_events; GRANT USAGE ON SCHEMA public TO owner_of_events;
                 ALTER TABLE public.security_event OWNER TO owner_of_events; SET ROLE owner_of_events";
    client.batch_execute(owner).await.unwrap();
    let error = source::holds_rows(client, table, &[]).await.unwrap_err();
    assert!(error.is_insufficient_privilege(), "{error}");
    client.batch_execute("RESET ROLE").await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_followed_is_a_definite_error_with_its_remedy() {
    let (_cluster, client) = cluster().await;
    client.batch_execute(TABLES).await.unwrap();
    let message = |error: SourceError| error.to_string();

    let error = message(shape_error(&client, "public", "security_events", "created_at").await);
    assert!(error.contains("there is public.security_event)"), "{error}");
    let error = message(shape_error(&client, "public", "keyless", "day").await);
    assert!(error.contains(r#"ALTER TABLE "public"."keyless" ADD PRIMARY KEY (id, "day")"#), "{error}");
    let error = message(shape_error(&client, "public", "security_event", "stamp").await);
    assert!(error.contains("no column stamp (there is created_at)"), "{error}");
    let error = message(shape_error(&client, "public", "dateless", "name").await);
    assert!(error.contains("name a date, timestamp or timestamptz"), "{error}");
    let error = message(shape_error(&client, "public", "dateless", "day").await);
    assert!(error.contains("ALTER COLUMN \"day\" SET NOT NULL"), "{error}");
    let error = message(shape_error(&client, "public", "security_event_default", "created_at").await);
    assert!(error.contains("set name = \"public.security_event\""), "{error}");
    let mut as_text = rules("public", "security_event", "created_at");
    as_text.text_columns = vec!["cost".to_owned()];
    let error = message(source::table(&client, &as_text, false).await.unwrap_err());
    assert!(error.contains("no column cost (there is id, type, price, feeling"), "{error}");
    as_text.text_columns = vec!["created_at".to_owned()];
    let error = message(source::table(&client, &as_text, false).await.unwrap_err());
    assert!(error.contains("dates the rows") && error.contains("text_columns"), "{error}");
    assert!(message(shape_error(&client, "public", "unlogged", "day").await).contains("SET LOGGED"));
    assert!(message(shape_error(&client, "public", "seen", "id").await).contains("is a view"));
}

#[tokio::test]
async fn publications_slots_and_settings_are_read_whole() {
    let (_cluster, client) = cluster().await;
    client.batch_execute(TABLES).await.unwrap();
    let setup = "
        CREATE PUBLICATION whole FOR ALL TABLES WITH (publish = 'insert');
        CREATE PUBLICATION cut FOR TABLE public.security_event (id, created_at) WHERE (type <> 'noise')
            WITH (publish = 'insert,truncate', publish_via_partition_root = true);
        CREATE PUBLICATION leaves FOR TABLE public.security_event;
        CREATE PUBLICATION spaces FOR TABLES IN SCHEMA \"監査 Schema\" WITH (publish_via_partition_root = true);";
    client.batch_execute(setup).await.unwrap();

    let root = TableName::new("public", "security_event");
    let cut = source::publication(&client, "cut").await.unwrap().unwrap();
    let published = cut.find(&root).unwrap();
    assert!(published.has_column_list && published.has_row_filter && cut.via_root);
    assert_eq!(cut.missing_operations(), ["update", "delete"]);
    let whole = source::publication(&client, "whole").await.unwrap().unwrap();
    assert!(whole.all_tables && !whole.via_root && !whole.tables[0].has_column_list);
    let leaves = source::publication(&client, "leaves").await.unwrap().unwrap();
    assert!(leaves.find(&root).is_none() && leaves.tables.len() == 3);
    let spaces = source::publication(&client, "spaces").await.unwrap().unwrap();
    assert_eq!((spaces.schemas.len(), spaces.tables[0].table.name.as_str()), (1, "Event\"s"));
    assert_eq!(source::publication(&client, "absent").await.unwrap(), None);

    assert_eq!(source::slot(&client, "lakebed").await.unwrap(), None);
    client.query_one("SELECT pg_create_logical_replication_slot('lakebed', 'pgoutput')", &[]).await.unwrap();
    client.query_one("SELECT pg_create_logical_replication_slot('other', 'test_decoding')", &[]).await.unwrap();
    let slot = source::slot(&client, "lakebed").await.unwrap().unwrap();
    assert_eq!((slot.active, &slot.holder, slot.wal_status.as_deref()), (false, &None, Some("reserved")));
    assert!(slot.confirmed > slot.restart && slot.retained_bytes > slot.lag_bytes);
    assert_eq!(slot.unusable("postgres"), None);
    assert!(slot.unusable("elsewhere").unwrap().contains("belongs to database postgres"));
    let other = source::slot(&client, "other").await.unwrap().unwrap();
    assert!(other.unusable("postgres").unwrap().contains("test_decoding"));

    let facts = source::server(&client).await.unwrap();
    assert_eq!((facts.version / 10_000, facts.wal_level.as_str(), facts.in_recovery), (15, "logical", false));
    assert_eq!((facts.replication_slots_used, facts.slot_wal_keep_bytes, facts.user.as_str()), (2, None, "postgres"));
    let marker = source::emit_message(&client, "lakebed", "marker").await.unwrap();
    assert!(
        source::server(&client).await.unwrap().wal_position >= marker,
        "flushed at once, so that an idle server sends it"
    );
    assert!(facts.wal_position >= slot.confirmed.unwrap() && facts.system_identifier.parse::<u64>().is_ok());
}

const PARTMAN: &str = "
    CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman; CREATE EXTENSION pg_cron SCHEMA pg_catalog;
    CREATE SCHEMA archive;
    CREATE TABLE archive.security_event_p2025_12_31 (LIKE public.security_event INCLUDING ALL);
    CREATE TABLE archive.security_event_p2025_12_30 (id int8);
    CREATE TABLE archive.config (key text PRIMARY KEY, value text);
    CREATE ROLE \"idp owner\"; GRANT CREATE, USAGE ON SCHEMA public TO \"idp owner\";
    ALTER TABLE public.security_event OWNER TO \"idp owner\";
    SET search_path = public, partman, pg_catalog;
    DROP TABLE public.security_event_p2026_01_02, public.security_event_default, public.security_event_p2026_01_01;
    SELECT partman.create_parent('public.security_event', 'created_at', 'native', 'daily', p_premake := 2);
    UPDATE partman.part_config SET retention = '90 days', retention_schema = 'archive', infinite_time_partitions = true;
    SET search_path = ''";

#[tokio::test]
async fn what_init_installs_is_enough_and_nothing_more() {
    let (cluster, client) = cluster().await;
    client.batch_execute(TABLES).await.unwrap();
    client.batch_execute(PARTMAN).await.unwrap();
    let event = source::table(&client, &rules("public", "security_event", "created_at"), false).await.unwrap();
    let odd = source::table(&client, &rules("監査 Schema", "Event\"s", "日付"), false).await.unwrap();
    let tables = [event.clone(), odd];
    let login = "Lake \"bed'";
    let users = ["postgres".to_owned()];
    let wanted = Installation {
        login,
        archive: "archive",
        publication: "Lake",
        tables: &tables,
        retention: None,
        maintenance_users: &users,
    };

    let password = "p'w\\ 秘密";
    let verifier = source::scram_verifier(password);
    assert!(source::apply(&client, &wanted, Some(&verifier)).await.unwrap() >= 8);
    let steps = source::plan(&client, &wanted).await.unwrap();
    assert!(steps.iter().all(|step| step.present && !step.sql.contains("SCRAM-SHA-256$")), "{steps:#?}");
    assert_eq!(source::apply(&client, &wanted, None).await.unwrap(), 0, "a second run changes nothing");
    // The files are repeatable by hand too, whatever is there.
    for step in &steps {
        client.batch_execute(&step.sql).await.unwrap();
    }
    let partman = source::partman(&client, &event.shape.table).await.unwrap().unwrap();
    let config = partman.config.unwrap();
    assert_eq!((partman.schema.as_str(), config.premake, config.interval.as_str()), ("partman", 2, "1 day"));
    assert_eq!((config.retention_schema.as_deref(), config.infinite_time_partitions), (Some("archive"), true));

    // Leaves that partman makes afterwards are readable.
    client.batch_execute("SET ROLE \"idp owner\"").await.unwrap();
    let later =
        "CREATE TABLE public.later PARTITION OF public.security_event FOR VALUES FROM ('2031-01-01') TO ('2031-01-02')";
    client.batch_execute(later).await.unwrap();
    client.batch_execute("RESET ROLE").await.unwrap();
    let mut detached = source::detached_tables(&client, event.oid, "archive").await.unwrap();
    detached.retain(|detached| detached.same_columns);
    assert_eq!(detached.len(), 1, "neither the guide's configuration nor another shape: {detached:?}");

    let pipeline = sign_in(&cluster, login, password).await;
    source::prepare_session(&pipeline).await.unwrap();
    let allowed = [
        "SELECT count(*) FROM public.later",
        "SELECT count(*) FROM public.security_event_default",
        "SELECT count(*) FROM archive.security_event_p2025_12_31",
        "SELECT count(*) FROM \"監査 Schema\".\"Event\"\"s\"",
        "SELECT parent_table FROM partman.part_config",
        "SELECT pg_create_logical_replication_slot('proof', 'pgoutput')",
        "SELECT pg_drop_replication_slot('proof')",
    ];
    for sql in allowed {
        pipeline.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let leaves = source::leaves(&pipeline, event.oid, &event.shape).await.unwrap();
    assert!(!source::holds_rows(&pipeline, &event.shape.table, &leaves).await.unwrap());
    refused(&pipeline).await;
}

async fn refused(pipeline: &Client) {
    let refused = [
        "DROP TABLE public.security_event",
        "DROP TABLE archive.security_event_p2025_12_31",
        "DROP SCHEMA archive CASCADE",
        "DELETE FROM public.security_event",
        "TRUNCATE public.security_event_default",
        "INSERT INTO \"監査 Schema\".\"Event\"\"s\" VALUES (1, now(), '')",
        "UPDATE partman.part_config SET retention = '1 day'",
        "CREATE TABLE archive.mine (id int8)",
        "CREATE TABLE public.mine (id int8)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "ALTER TABLE public.security_event DETACH PARTITION public.later",
        "DO $$ BEGIN LOCK public.security_event IN SHARE MODE; END $$",
        "SELECT * FROM archive.config",
        "SELECT * FROM public.keyless",
        "ALTER PUBLICATION \"Lake\" ADD TABLE public.dateless",
        "DROP PUBLICATION \"Lake\"",
        "ALTER DEFAULT PRIVILEGES FOR ROLE \"idp owner\" GRANT ALL ON TABLES TO PUBLIC",
        "SELECT pg_read_file('/etc/passwd')",
    ];
    for sql in refused {
        let error = pipeline.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(|state| state.code()), Some("42501"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn an_existing_login_only_gets_what_it_lacks() {
    let (_cluster, client) = cluster().await;
    client.batch_execute(TABLES).await.unwrap();
    client
        .batch_execute("CREATE ROLE lakebed NOLOGIN PASSWORD 'kept'; CREATE EXTENSION pg_cron SCHEMA pg_catalog")
        .await
        .unwrap();
    const PASSWORD: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = 'lakebed'";
    let before: String = client.query_one(PASSWORD, &[]).await.unwrap().get(0);
    let tables = [source::table(&client, &rules("public", "security_event", "created_at"), false).await.unwrap()];
    let wanted = Installation {
        login: "lakebed",
        archive: "archive",
        publication: "lakebed",
        retention: None,
        tables: &tables,
        maintenance_users: &[],
    };
    source::apply(&client, &wanted, Some(&source::scram_verifier("other"))).await.unwrap();
    let role = source::role(&client, "lakebed").await.unwrap().unwrap();
    assert!(role.can_login && role.replication && !role.superuser && !role.bypasses_row_security);
    assert_eq!(client.query_one(PASSWORD, &[]).await.unwrap().get::<_, String>(0), before);

    let jobs = source::cron_jobs(&client, "postgres").await.unwrap();
    let step = source::plan_cron(&jobs, "postgres", "partman").unwrap();
    source::apply_cron(&client, &step).await.unwrap();
    client.batch_execute(&step.sql).await.unwrap();
    let jobs = source::cron_jobs(&client, "postgres").await.unwrap();
    assert_eq!((jobs.len(), jobs[0].schedule.as_str()), (1, "0 2 * * *"));
    assert!(jobs[0].active && source::runs_maintenance(&jobs[0]));
    assert!(source::plan_cron(&jobs, "postgres", "partman").unwrap().present);
}

/// VACUUM FULL takes hours, and nobody waits for it who only wants to know which days there are. A part of a day is bounded by what dates it.
#[tokio::test]
async fn leaves_are_listed_and_measured_while_somebody_locks_them() {
    let (cluster, client) = cluster().await;
    let sql = "CREATE TABLE public.visit (id int8, tenant text, seen date, day date, PRIMARY KEY (id, tenant, seen, day)) PARTITION BY RANGE (day);
         CREATE TABLE public.visit_1 PARTITION OF public.visit FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
         CREATE TABLE public.visit_2 PARTITION OF public.visit FOR VALUES FROM ('2026-01-01') TO ('2026-01-02') PARTITION BY LIST (tenant);
         CREATE TABLE public.visit_2a PARTITION OF public.visit_2 FOR VALUES IN ('a');
         CREATE TABLE public.visit_3 PARTITION OF public.visit FOR VALUES FROM ('2026-01-02') TO ('2026-02-01') PARTITION BY RANGE (day);
         CREATE TABLE public.visit_3a PARTITION OF public.visit_3 FOR VALUES FROM (MINVALUE) TO ('2026-01-03');
         CREATE TABLE public.visit_3b PARTITION OF public.visit_3 FOR VALUES FROM ('2026-01-03') TO ('2026-01-04');
         CREATE TABLE public.visit_4 PARTITION OF public.visit FOR VALUES FROM ('2026-02-01') TO ('2026-02-02') PARTITION BY RANGE (seen);
         CREATE TABLE public.visit_4a PARTITION OF public.visit_4 FOR VALUES FROM ('2001-01-01') TO ('2002-01-01');
         CREATE TABLE public.visit_5 PARTITION OF public.visit DEFAULT;
         INSERT INTO public.visit VALUES (1, 'a', '2001-01-01', '2026-01-01')";
    client.batch_execute(sql).await.unwrap();
    let facts = source::table(&client, &rules("public", "visit", "day"), false).await.unwrap();
    let locking = cluster.connect("postgres").await.unwrap();
    locking.batch_execute("BEGIN; LOCK TABLE public.visit IN ACCESS EXCLUSIVE MODE").await.unwrap();
    client.batch_execute("SET lock_timeout = '1s'").await.unwrap();
    let leaves = source::leaves(&client, facts.oid, &facts.shape).await.unwrap();
    let range = |from: &str, to: &str| LeafBound::Range { from: Some(from.to_owned()), to: Some(to.to_owned()) };
    let expected = [
        ("visit_1", LeafBound::Range { from: None, to: Some("2026-01-01".to_owned()) }),
        ("visit_2a", range("2026-01-01", "2026-01-02")),
        ("visit_3a", range("2026-01-02", "2026-02-01")),
        ("visit_3b", range("2026-01-03", "2026-01-04")),
        ("visit_4a", range("2026-02-01", "2026-02-02")),
        ("visit_5", LeafBound::Default),
    ];
    let found: Vec<(&str, LeafBound)> =
        leaves.iter().map(|leaf| (leaf.table.name.as_str(), leaf.bound.clone())).collect();
    assert_eq!(found, expected);
    let oids: Vec<u32> = leaves.iter().map(|leaf| leaf.oid).collect();
    let extents = source::extents(&client, &oids, true).await.unwrap();
    assert_eq!(extents.iter().map(|extent| extent.blocks).collect::<Vec<_>>(), [1; 6], "guesses");
    assert!(source::extents(&client, &oids, false).await.unwrap_err().is_lock_conflict());
    locking.batch_execute("ROLLBACK").await.unwrap();
    let exact = source::extents(&client, &oids, false).await.unwrap();
    assert_eq!(exact.iter().map(|extent| extent.blocks).collect::<Vec<_>>(), [0, 1, 0, 0, 0, 0]);
}
