use super::*;

const MINIMAL: &str = r#"
[source]
url = "postgresql://lakebed:${SECRET}@127.0.0.1:5432/idpserver?sslmode=disable"
slot = "lakebed"
publication = "lakebed"

[lake]
url = "file:///tmp/lake"

[[table]]
name = "public.security_event"
partition_column = "created_at"
"#;

fn parse(text: &str) -> Result<Pipeline, ConfigError> {
    Pipeline::parse(text, "pipeline.toml", &|name| (name == "SECRET").then(|| "canary".to_owned()))
}

fn refusal(text: &str) -> String {
    let message = parse(text).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    assert!(!message.contains("canary"), "no secret: {message}");
    message
}

#[test]
fn defaults_are_the_documented_ones() {
    let pipeline = parse(MINIMAL).unwrap();
    assert_eq!(pipeline.buffer.max_age, Duration::from_secs(10));
    assert_eq!(pipeline.buffer.max_bytes, 64 * MIB);
    assert_eq!(pipeline.buffer.memory_limit_bytes, 256 * MIB);
    assert_eq!(pipeline.tables[0].partition_by, PartitionBy::Day);
    assert_eq!(pipeline.tables[0].lake_path(), "security_event");
    assert_eq!(pipeline.tables[0].on_error, OnError::Stop);
    assert_eq!(pipeline.tables[0].truncate, OnTruncate::Refuse);
    let snapshot = SnapshotSection { connections: 2, max_bytes_per_second: None, batch_bytes: 2048 * MIB };
    assert_eq!(pipeline.snapshot, snapshot);
    assert!(pipeline.source.streaming && pipeline.source.failover && pipeline.source.heartbeat_interval.is_none());
    assert!(pipeline.source.url.contains("canary"));
    assert!(!format!("{pipeline:?}").contains("canary"));
}

#[test]
fn what_a_slot_and_a_table_may_be_told_is_read() {
    let text = MINIMAL
        .replace("[lake]", "streaming = false\nfailover = false\nheartbeat_interval = \"90s\"\n[lake]")
        .replace("\"created_at\"", "\"created_at\"\non_error = \"park\"\ntruncate = \"apply\"");
    let pipeline = parse(&text).unwrap();
    assert!(!pipeline.source.streaming && !pipeline.source.failover);
    assert_eq!(pipeline.source.heartbeat_interval, Some(Duration::from_secs(90)));
    assert_eq!(pipeline.tables[0].on_error, OnError::Park);
    assert_eq!(pipeline.tables[0].truncate, OnTruncate::Apply);
}

#[test]
fn how_the_copy_goes_may_be_told() {
    let text = "[snapshot]\nconnections = 16\nmax_bytes_per_second = \"50MiB\"\nbatch_bytes = \"1MiB\"\n[lake]";
    let snapshot = parse(&MINIMAL.replace("[lake]", text)).unwrap().snapshot;
    let expected = SnapshotSection { connections: 16, max_bytes_per_second: Some(50 * MIB), batch_bytes: MIB };
    assert_eq!(snapshot, expected);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    for (section, line) in
        [("[lake]\nurk = 1", 8), ("[snapshot]\nurk = 1\n[lake]", 8), ("[buffer]\nurk = 1\n[lake]", 8)]
    {
        let message = refusal(&MINIMAL.replace("[lake]", section));
        assert!(message.contains(&format!("line {line}")) && message.contains("urk"), "{message}");
    }
    let section = refusal(&MINIMAL.replace("[lake]", "[snapshots]\nconnections = 2\n[lake]"));
    assert!(section.contains("line 7") && section.contains("snapshots"), "{section}");
}

#[test]
fn a_bad_value_is_named_with_the_rule() {
    let cases = [
        ("slot = \"lakebed\"", "slot = \"Lake-Bed\"", "[source].slot"),
        ("${SECRET}", "${OTHER}", "OTHER"),
        ("file:///tmp/lake", "/tmp/lake", "[lake].url"),
        ("file:///tmp/lake", "ftp://host/lake", "[lake].url"),
        ("public.security_event", "security_event", "schema.table"),
        ("[lake]", "[buffer]\nmax_age = \"soon\"\n[lake]", "[buffer].max_age"),
        ("[lake]", "[buffer]\nmax_bytes = \"200MiB\"\n[lake]", "[buffer].memory_limit"),
        ("[lake]", "[archive]\nschedule = \"daily\"\n[lake]", "[archive].schedule"),
        ("[lake]", "[archive]\nschedule = \"0 25 * * *\"\n[lake]", "[archive].schedule"),
        ("[lake]", "[archive]\nschema = \"public\"\n[lake]", "[archive].schema"),
        ("[lake]", "[archive]\nschema = \"pg_catalog\"\n[lake]", "[archive].schema"),
        ("[lake]", "[snapshot]\nconnections = 0\n[lake]", "[snapshot].connections must be from 1 to 16"),
        ("[lake]", "[snapshot]\nconnections = 17\n[lake]", "[snapshot].connections must be from 1 to 16"),
        ("[lake]", "[snapshot]\nconnections = -1\n[lake]", "[snapshot].connections must be from 1 to 16"),
        (
            "[lake]",
            "[snapshot]\nmax_bytes_per_second = \"1KiB\"\n[lake]",
            "max_bytes_per_second must be at least 64KiB",
        ),
        ("[lake]", "[snapshot]\nmax_bytes_per_second = \"fast\"\n[lake]", "max_bytes_per_second must be a size"),
        ("[lake]", "[snapshot]\nbatch_bytes = \"1000\"\n[lake]", "[snapshot].batch_bytes must be at least 1MiB"),
        ("[lake]", "[status]\nlisten = \"here\"\n[lake]", "[status].listen"),
        ("\"created_at\"", "\"created_at\"\npartition_by = \"week\"", "partition_by"),
        ("\"created_at\"", "\"created_at\"\ntime_zone = \"Mars/Base\"", "time_zone"),
        ("\"created_at\"", "\"created_at\"\non_error = \"ignore\"", "on_error must be \"stop\" or \"park\""),
        ("\"created_at\"", "\"created_at\"\ntruncate = \"ignore\"", "truncate must be \"refuse\" or \"apply\""),
        ("[lake]", "heartbeat_interval = \"500ms\"\n[lake]", "[source].heartbeat_interval must be a duration from 1s"),
        ("[lake]", "heartbeat_interval = \"often\"\n[lake]", "[source].heartbeat_interval"),
        ("[lake]", "streaming = \"on\"\n[lake]", "expected a boolean"),
        ("\"created_at\"", "\"created_at\"\ntext_columns = [\"\"]", "text_columns must not be empty"),
        ("\"created_at\"", "\"created_at\"\ntext_columns = [\"a\", \"a\"]", "text_columns has a twice"),
        ("\"created_at\"", "\"created_at\"\ntext_columns = [\"created_at\"]", "must not name the partition column"),
        ("\"created_at\"", "\"created_at\"\ntext_columns = \"a\"", "expected a sequence"),
        ("\"created_at\"", "\"created_at\"\nlake_columns = { a = \"B\" }", "gives a a name that some reader refuses"),
        ("\"created_at\"", "\"created_at\"\nlake_columns = { a = \"c\", b = \"c\" }", "gives c to two columns"),
        ("\"created_at\"", "\"created_at\"\nlake_columns = { a = \"\" }", "lake_columns must not be empty"),
        ("\"created_at\"", "\"created_at\"\nlake_columns = [\"a\"]", "expected a map"),
    ];
    for (from, to, expected) in cases {
        let message = refusal(&MINIMAL.replace(from, to));
        assert!(message.contains(expected), "{to}: {message}");
    }
}

#[test]
fn text_columns_are_kept_in_order() {
    assert!(parse(MINIMAL).unwrap().tables[0].text_columns.is_empty());
    let named = parse(&format!("{MINIMAL}text_columns = [\"expires_at\", \"Übel\"]\n")).unwrap();
    assert_eq!(named.tables[0].text_columns, ["expires_at", "Übel"]);
}

#[test]
fn a_column_may_have_another_name_in_the_lake() {
    assert!(parse(MINIMAL).unwrap().tables[0].lake_columns.is_empty());
    let named = parse(&format!("{MINIMAL}lake_columns = {{ amount = \"amount__v2\", Id = \"id\" }}\n")).unwrap();
    let columns: Vec<_> = named.tables[0].lake_columns.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(columns, [("Id", "id"), ("amount", "amount__v2")]);
}

#[test]
fn a_type_error_does_not_repeat_the_value() {
    for value in ["12345", "1.12345", "true", "[\"canary, expected x\"]"] {
        let text = MINIMAL.replace("slot = \"lakebed\"", &format!("slot = {value}"));
        let message = refusal(&text);
        assert!(message.contains("line 4: invalid type: ") && message.contains(", expected a string"), "{message}");
        assert!(!message.contains("12345") && !message.contains("true"), "{message}");
    }
    let shown = without_value("invalid value: string \"canary, expected x\", expected a map");
    assert_eq!(shown, "invalid value: string, expected a map");
}

#[test]
fn the_lakes_url_is_shown_without_secrets() {
    let url = "s3://canary:canary@bucket/lake?token=canary";
    let pipeline = parse(&MINIMAL.replace("file:///tmp/lake", url)).unwrap();
    let shown = format!("{pipeline:?}");
    assert!(!shown.contains("canary") && shown.contains("s3://bucket/lake"), "{shown}");
}

#[test]
fn two_tables_may_not_share_a_folder() {
    let twice = format!("{MINIMAL}\n[[table]]\nname = \"other.security_event\"\npartition_column = \"created_at\"\n");
    assert!(refusal(&twice).contains("security_event twice"));
    assert!(refusal(&twice.replace("other.security_event", "other.Security_Event")).contains("Security_Event twice"));
    let journal = refusal(&twice.replace("other.security_event", "other.Security_Event__Changes"));
    assert!(
        journal.contains("security_event__changes, which is the folder of the changes of security_event"),
        "{journal}"
    );
    let alone = MINIMAL.replace("public.security_event", "public.security_event__changes");
    assert_eq!(parse(&alone).unwrap().tables[0].lake_path(), "security_event__changes");
    assert!(
        refusal(
            &MINIMAL.replace("[[table]]", "[query]").replace("name = ", "#").replace("partition_column", "database")
        )
        .contains("[[table]]")
    );
}

#[test]
fn the_files_in_the_box_are_valid() {
    for name in ["security_event.toml", "idp.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        Pipeline::parse(&text, name, &|variable| Some(format!("/{}", variable.to_lowercase()))).unwrap();
    }
}
