//! Transactions that change rows of earlier ones, in both tables: some rows of any age, or thousands of the last minute's.
//!
//! Each kind keeps to rows of its own class, and one session writes a class: so no session waits for another, and none is refused because
//! a row that it wants has just moved to another partition.

use crate::support::dice::Dice;
use crate::support::load;

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";
const ANOTHER_LABEL: &str = "description = md5(random()::text)";
const ANOTHER_STATUS: &str = "status = md5(random()::text)";
const ANOTHER_PAYLOAD: &str = "status = md5(random()::text), security_event_hook_execution_payload = NULL,
    security_event_payload = jsonb_build_object('again', (SELECT string_agg(md5((random() + n)::text), '') FROM generate_series(1, 120) AS n))";
/// Between the days that have leaves, and away from where the row is.
const ANOTHER_DAY: &str = "created_at = created_at
    + CASE WHEN created_at < timezone('UTC', now()) - interval '36 hours' THEN 1 ELSE -1 END * interval '1 day'";
/// The last byte of an id is even in one half of the rows.
const EVEN: u32 = 0;
const ODD: u32 = 1;

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Failed hooks whose payloads are stored out of line: what retries look for.
    Failures,
    /// The customer's manual retry: one column of a few rows whose payloads do not come along, and a row of today for each.
    Retry,
    /// One column of a few events.
    Relabel,
    /// The payload, too.
    Rewrite,
    Delete,
    AnotherKey,
    AnotherDay,
    /// Deleted and inserted again as they were, which is what partman does; in one of two such transactions they change, too.
    Moved,
    /// A row that comes, changes and goes, a transaction each.
    Fleeting,
    /// Some of everything, a part of it rolled back to a savepoint.
    Mixed,
    /// Some of everything, rolled back.
    RolledBack,
    /// Thousands of recent rows, long enough to be streamed, a part of it rolled back to a savepoint.
    Thousands,
}

impl Change {
    pub(crate) fn statements(self, dice: &mut Dice) -> String {
        let part = match self {
            Self::Failures => {
                let second = 1 + dice.below(80_000) as u32;
                load::long_hook_results(3, second..=second + dice.below(3) as u32)
            }
            Self::Fleeting => return fleeting(),
            Self::Thousands => return transaction(&thousands(dice), "COMMIT"),
            Self::RolledBack => return transaction(&mixed(dice), "ROLLBACK"),
            Self::Mixed => mixed(dice),
            _ => self.of_a_few(dice),
        };
        transaction(&part, "COMMIT")
    }

    /// About how many rows there are more afterwards.
    pub(crate) fn rows_about(self) -> u64 {
        match self {
            Self::Failures => 6,
            Self::Thousands | Self::Mixed => 150,
            _ => 0,
        }
    }

    fn of_a_few(self, dice: &mut Dice) -> String {
        let table = if dice.percent(60) { EVENTS } else { HOOKS };
        let label = if table == EVENTS { ANOTHER_LABEL } else { ANOTHER_STATUS };
        let count = 1 + dice.below(4);
        let few = |table| some_of_any_age(table, EVEN, count);
        match self {
            Self::Retry => retry(count),
            Self::Rewrite => update(HOOKS, ANOTHER_PAYLOAD, &few(HOOKS)),
            Self::Delete => format!("DELETE FROM {table} WHERE {};\n", few(table)),
            Self::AnotherKey => update(table, &format!("id = gen_random_uuid(), {label}"), &few(table)),
            Self::AnotherDay => update(table, ANOTHER_DAY, &few(table)),
            Self::Moved if dice.percent(50) => moved(table, &few(table)),
            Self::Moved => moved_and_changed(table, label, &few(table)),
            _ => update(EVENTS, ANOTHER_LABEL, &few(EVENTS)),
        }
    }
}

/// One row of each table changes, so that each journal gets a commit when the row is in the lake already.
pub(crate) fn closing() -> String {
    let one = |table| format!("(id, created_at) IN (SELECT id, created_at FROM {table} LIMIT 1)");
    transaction(&(update(EVENTS, ANOTHER_LABEL, &one(EVENTS)) + &update(HOOKS, ANOTHER_STATUS, &one(HOOKS))), "COMMIT")
}

fn transaction(statements: &str, end: &str) -> String {
    format!("BEGIN;\n{statements}{end};\n")
}

fn update(table: &str, set: &str, rows: &str) -> String {
    format!("UPDATE {table} SET {set} WHERE {rows};\n")
}

fn moved(table: &str, rows: &str) -> String {
    format!("WITH moved AS (DELETE FROM {table} WHERE {rows} RETURNING *) INSERT INTO {table} SELECT * FROM moved;\n")
}

/// The rows are the same in all three statements, which a temporary table keeps: each choice is another one.
fn moved_and_changed(table: &str, label: &str, rows: &str) -> String {
    format!(
        "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {table} WHERE {rows};
         DELETE FROM {table} WHERE (id, created_at) IN (SELECT id, created_at FROM kept);
         INSERT INTO {table} SELECT * FROM kept;
         UPDATE {table} SET {label} WHERE (id, created_at) IN (SELECT id, created_at FROM kept);\n"
    )
}

/// The rows after a moment of the last minutes, or of the same minutes of one of the days before. The server chooses moment and day. Moments and
/// not keys, so that a large transaction's files, which hold most of the rows, are not what nearly every change rewrites.
fn some_of_any_age(table: &str, class: u32, count: u64) -> String {
    let moment = "created_at >= (SELECT timezone('UTC', now()) - random() * interval '15 minutes' - floor(random() * 3) * interval '1 day')";
    those(table, class, moment, "ORDER BY created_at", count)
}

/// Rows of the last minute, or of the same minute of one of the days before.
fn recent(table: &str, class: u32, days_ago: u64, count: u64) -> String {
    let then = format!("timezone('UTC', now()) - {days_ago} * interval '1 day'");
    let minute = format!("created_at > {then} - interval '1 minute' AND created_at <= {then}");
    those(table, class, &minute, "", count)
}

fn those(table: &str, class: u32, which: &str, order: &str, count: u64) -> String {
    format!(
        "(id, created_at) IN (SELECT id, created_at FROM {table}
             WHERE {which} AND get_byte(uuid_send(id), 15) % 2 = {class} {order} LIMIT {count})"
    )
}

/// Of the failed hooks, whose times are spread over three days.
fn retry(count: u64) -> String {
    let long = "created_at >= (SELECT timezone('UTC', now()) - random() * interval '3 days') AND pg_column_size(security_event_payload) > 2000";
    let rows = those(HOOKS, EVEN, long, "ORDER BY created_at", count);
    format!(
        "WITH retried AS (UPDATE {HOOKS} SET {ANOTHER_STATUS} WHERE {rows} RETURNING *)
         INSERT INTO {HOOKS}
         SELECT gen_random_uuid(), tenant_id, security_event_id, security_event_type, security_event_hook, security_event_payload, NULL,
                'SUCCESS', timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
         FROM retried;\n"
    )
}

fn fleeting() -> String {
    format!(
        "DO $$
         DECLARE
             even uuid := left(gen_random_uuid()::text, 35) || '0';
             at timestamp := timezone('UTC', clock_timestamp());
         BEGIN
             INSERT INTO {HOOKS} VALUES (even, even, even, 'login_success', 'webhook', '{{}}', NULL, 'FAILURE', at, at);
             COMMIT;
             UPDATE {HOOKS} SET {ANOTHER_STATUS} WHERE id = even AND created_at = at;
             COMMIT;
             UPDATE {HOOKS} SET created_at = created_at - interval '1 day' WHERE id = even AND created_at = at;
             COMMIT;
             DELETE FROM {HOOKS} WHERE id = even;
         END
         $$;\n"
    )
}

fn mixed(dice: &mut Dice) -> String {
    let few = |table, count| some_of_any_age(table, EVEN, count);
    let kept = [Change::Retry, Change::AnotherDay, Change::Moved, Change::AnotherKey];
    let mut statements = load::events(100, 3) + &update(EVENTS, ANOTHER_LABEL, &few(EVENTS, 5));
    statements += "SAVEPOINT dead;\n";
    statements += &update(HOOKS, ANOTHER_PAYLOAD, &few(HOOKS, 5));
    statements += &Change::Delete.of_a_few(dice);
    statements += "ROLLBACK TO dead;\n";
    statements += &kept[dice.index(kept.len())].of_a_few(dice);
    statements += "SAVEPOINT kept;\n";
    statements += &Change::Delete.of_a_few(dice);
    statements + "RELEASE kept;\n" + &load::hook_results(50, 2) + &update(HOOKS, ANOTHER_STATUS, &few(HOOKS, 3))
}

fn thousands(dice: &mut Dice) -> String {
    let days_ago = dice.below(3);
    let rows = |table, count| recent(table, ODD, days_ago, count);
    let mut statements = update(EVENTS, ANOTHER_LABEL, &rows(EVENTS, 3_000));
    statements += "SAVEPOINT dead;\n";
    statements += &format!("DELETE FROM {EVENTS} WHERE {};\n", rows(EVENTS, 1_000));
    statements += &update(HOOKS, ANOTHER_PAYLOAD, &rows(HOOKS, 50));
    statements += "ROLLBACK TO dead;\n";
    statements += &update(HOOKS, ANOTHER_STATUS, &rows(HOOKS, 500));
    statements += &load::events(300, 3);
    statements
        + &match dice.below(4) {
            0 => format!("DELETE FROM {EVENTS} WHERE {};\n", rows(EVENTS, 500)),
            1 => update(EVENTS, &format!("id = gen_random_uuid(), {ANOTHER_LABEL}"), &rows(EVENTS, 500)),
            2 => update(EVENTS, ANOTHER_DAY, &rows(EVENTS, 500)),
            _ => moved(EVENTS, &rows(EVENTS, 500)),
        }
}
