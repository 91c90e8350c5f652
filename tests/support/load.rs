//! Transactions of every kind into both tables, as statements: what crashes, faults and the soak run under.

use lakebed::demo::Cluster;

/// Indexes beside the keys cost most of an insert's time and nothing here reads them.
const DROP_INDEXES: &str = "
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT c.oid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                WHERE i.indrelid IN ('public.security_event'::regclass, 'public.security_event_hook_results'::regclass)
                  AND NOT i.indisprimary LOOP
        EXECUTE 'DROP INDEX ' || name;
    END LOOP;
END
$$";

/// Prepares the customer's database for many rows.
pub async fn drop_indexes(cluster: &Cluster, database: &str) {
    cluster.execute(database, DROP_INDEXES).await.unwrap();
}

/// So many events on `days` days, about 400 bytes each.
pub fn events(rows: u32, days: u32) -> String {
    format!(
        "INSERT INTO public.security_event
         SELECT gen_random_uuid(), 'login_success', 'made by a test', gen_random_uuid(), 'tenant, \"quoted\"', 'client', '日本語',
                NULL, CASE WHEN n % 2 = 0 THEN '' END, NULL, '192.0.2.1', E'line\\nbreak',
                jsonb_build_object('n', n, 'text', repeat(md5(random()::text), 4)),
                timezone('UTC', clock_timestamp()) - (n % {days}) * interval '1 day'
         FROM generate_series(1, {rows}) AS n;\n"
    )
}

/// So many hook results on `days` days.
pub fn hook_results(rows: u32, days: u32) -> String {
    format!(
        "INSERT INTO public.security_event_hook_results
         SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'login_success', 'webhook',
                jsonb_build_object('n', n), CASE WHEN n % 2 = 0 THEN '{{}}'::jsonb END, 'SUCCESS',
                timezone('UTC', clock_timestamp()) - (n % {days}) * interval '1 day', timezone('UTC', clock_timestamp())
         FROM generate_series(1, {rows}) AS n;\n"
    )
}

/// Hook results of today and the days before it, `days` in all, with payloads of 3 to 6 KB that cannot be compressed, so that they are stored
/// out of line. Those of a day are numbered, a second apart.
pub fn long_hook_results(days: u32, of_a_day: std::ops::RangeInclusive<u32>) -> String {
    let noise = "(SELECT string_agg(encode(sha512((random()::text || n || part)::bytea), 'base64'), '')
                  FROM generate_series(1, 35 + n % 25) AS part)";
    let (first, last) = (of_a_day.start(), of_a_day.end());
    format!(
        "INSERT INTO public.security_event_hook_results
         SELECT gen_random_uuid(), '00000000-0000-4000-8000-000000000001', gen_random_uuid(), 'login_success', 'webhook',
                jsonb_build_object('p', {noise}), jsonb_build_object('r', {noise}), 'FAILURE',
                timezone('UTC', date_trunc('day', now())) - day * interval '1 day' + n * interval '1 second', timezone('UTC', now())
         FROM generate_series(0, {days} - 1) AS day, generate_series({first}, {last}) AS n;\n"
    )
}

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One row.
    Single,
    /// Some thousand rows of both tables.
    Thousands,
    /// Some thousand rows, rolled back.
    RolledBack,
    /// Savepoints of some hundred to some thousand rows each, every second one rolled back to.
    Savepoints,
    /// A subtransaction for each of thousands of rows, every third one rolled back.
    ManySavepoints,
    /// Hundreds of thousands of rows, a part of them rolled back.
    Huge,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Single, Kind::Thousands, Kind::RolledBack, Kind::Savepoints, Kind::ManySavepoints, Kind::Huge];

    /// One transaction of this kind; `size` from 0 to 99 makes it smaller or larger.
    pub fn statements(self, size: u32) -> String {
        let thousands = 1_000 + size * 40;
        match self {
            Kind::Single if size.is_multiple_of(5) => hook_results(1, 2),
            Kind::Single => events(1, 2),
            Kind::Thousands => transaction(&(events(thousands, 3) + &hook_results(thousands / 4, 2)), "COMMIT"),
            Kind::RolledBack => transaction(&(events(thousands, 2) + &hook_results(100, 2)), "ROLLBACK"),
            Kind::Savepoints => savepoints(3 + size % 7, 200 + size * 20),
            Kind::ManySavepoints => many_savepoints(1_000 + size * 40),
            Kind::Huge => {
                let dead = format!("SAVEPOINT part;\n{}ROLLBACK TO part;\n", events(20_000, 2));
                transaction(&(events(120_000, 3) + &dead + &events(80_000 + size * 400, 2)), "COMMIT")
            }
        }
    }
}

fn transaction(statements: &str, end: &str) -> String {
    format!("BEGIN;\n{statements}{end};\n")
}

/// The last savepoint is rolled back and the one before it is kept, so that both orders occur.
fn savepoints(count: u32, rows: u32) -> String {
    let mut statements = events(rows, 2);
    for index in 0..count {
        statements += &format!("SAVEPOINT s{index};\n{}{}", events(rows, 2), hook_results(rows / 10, 2));
        statements += &match index % 2 == count % 2 {
            true => format!("RELEASE s{index};\n"),
            false => format!("ROLLBACK TO s{index};\n"),
        };
    }
    transaction(&(statements + &hook_results(10, 1)), "COMMIT")
}

/// A subtransaction for each of `count - 1` rows, every third one rolled back.
pub fn many_savepoints(count: u32) -> String {
    format!(
        "DO $$
         BEGIN
             FOR turn IN 1..{count} LOOP
                 BEGIN
                     {}
                     IF turn % 3 = 0 THEN
                         RAISE EXCEPTION 'not this one';
                     END IF;
                 EXCEPTION WHEN raise_exception THEN
                     NULL;
                 END;
             END LOOP;
         END
         $$;\n",
        events(1, 2)
    )
}

/// Ordinary transactions around a large one, most of which is rolled back to a savepoint after its rows were sent, and one that
/// is rolled back as a whole. A server with a small `logical_decoding_work_mem` streams both.
pub fn around_a_streamed_one() -> String {
    let ordinary = events(3, 2) + &hook_results(2, 1);
    let streamed = events(2_000, 3)
        + "SAVEPOINT dead;\n"
        + &events(12_000, 2)
        + &hook_results(500, 2)
        + "ROLLBACK TO dead;\n"
        + &hook_results(2_000, 2)
        + "SAVEPOINT kept;\n"
        + &events(500, 2)
        + "RELEASE kept;\n";
    let parts = [
        transaction(&ordinary, "COMMIT"),
        transaction(&streamed, "COMMIT"),
        transaction(&(events(5_000, 2) + &hook_results(100, 1)), "ROLLBACK"),
        Kind::Savepoints.statements(20),
        transaction(&ordinary, "COMMIT"),
    ];
    parts.concat()
}

/// A number from 0 to 15 that the server chooses once a statement.
const SIXTEENTH: &str = "(SELECT floor(random() * 16)::int)";

/// Whether a row is in that sixteenth of a table.
fn chosen() -> String {
    format!("get_byte(uuid_send(id), 15) % 16 = {SIXTEENTH}")
}

/// Ordinary transactions and a streamed one that change rows of earlier ones: updates with and without the long columns, deletes, rows that
/// go to another day or another key, that are deleted and inserted again as they were, that come and go at once, and rolled back changes.
pub fn changes() -> String {
    let events = "public.security_event";
    let hooks = "public.security_event_hook_results";
    let relabel = || format!("UPDATE {events} SET description = md5(random()::text) WHERE {};\n", chosen());
    let retry = format!("UPDATE {hooks} SET status = md5(random()::text) WHERE {};\n", chosen());
    let rewrite = format!(
        "UPDATE {hooks} SET security_event_payload = jsonb_build_object('again', md5(random()::text)),
             status = md5(random()::text) WHERE {};\n",
        chosen()
    );
    let delete = |table: &str| format!("DELETE FROM {table} WHERE {};\n", chosen());
    let another_day = format!(
        "UPDATE {events} SET created_at = created_at - interval '1 day', description = md5(random()::text)
         WHERE {} AND created_at > timezone('UTC', now()) - interval '1 day';\n",
        chosen()
    );
    let another_key = format!("UPDATE {events} SET id = gen_random_uuid() WHERE {};\n", chosen());
    let moved = format!(
        "WITH moved AS (DELETE FROM {events} WHERE {} RETURNING *) INSERT INTO {events} SELECT * FROM moved;\n",
        chosen()
    );
    let inserted = |rows: u32| self::events(rows, 3);
    let streamed = inserted(400) + &relabel() + "SAVEPOINT dead;\n" + &delete(hooks) + &relabel();
    let streamed = streamed + "ROLLBACK TO dead;\n" + &delete(events) + &retry;
    let parts = [
        transaction(&(inserted(200) + &hook_results(80, 2)), "COMMIT"),
        transaction(&(relabel() + &retry), "COMMIT"),
        transaction(&(another_day + &moved), "COMMIT"),
        transaction(&(rewrite + &delete(events)), "ROLLBACK"),
        transaction(&streamed, "COMMIT"),
        transaction(&(another_key + &delete(hooks) + &relabel()), "COMMIT"),
    ];
    parts.concat()
}

/// Every event changes, in one transaction.
pub fn change_of_all() -> String {
    transaction("UPDATE public.security_event SET description = md5(random()::text);\n", "COMMIT")
}

/// A few small transactions, a commit each.
pub fn small_ones() -> String {
    (0..4).map(|size| transaction(&Kind::Single.statements(size), "COMMIT")).collect()
}
