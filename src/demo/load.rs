//! Rows into PostgreSQL: history by COPY, the live stream as the application inserts.

use super::DemoError;
use super::generator::{History, HookResult, Row, SecurityEvent};
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement, Transaction};

/// COPY goes into the root, so that PostgreSQL routes the rows and the WAL carries them as it does in production.
const COPY_EVENTS: &str = "COPY public.security_event FROM STDIN";
const COPY_HOOKS: &str = "COPY public.security_event_hook_results FROM STDIN";
/// Every parameter is text: the generator makes what PostgreSQL reads.
const INSERT_EVENT: &str = "INSERT INTO public.security_event VALUES ($1::text::uuid, $2, $3, $4::text::uuid, $5, $6, $7, \
     $8::text::uuid, $9, $10, $11::text::inet, $12, $13::text::jsonb, $14::text::timestamp) ON CONFLICT DO NOTHING";
const INSERT_HOOK: &str = "INSERT INTO public.security_event_hook_results VALUES ($1::text::uuid, $2::text::uuid, \
     $3::text::uuid, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9::text::timestamp, $10::text::timestamp) \
     ON CONFLICT DO NOTHING";
/// Row-level security binds the application to one tenant a transaction.
const BECOME_TENANT: &str = "SELECT set_config('app.tenant_id', $1, true)";

/// Rows written, by table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Into `security_event`.
    pub events: u64,
    /// Into `security_event_hook_results`.
    pub hook_results: u64,
}

impl Written {
    /// Both tables.
    pub fn total(self) -> u64 {
        self.events + self.hook_results
    }

    /// Counts one row.
    pub fn count(&mut self, row: &Row) {
        match row {
            Row::Event(_) => self.events += 1,
            Row::Hook(_) => self.hook_results += 1,
        }
    }
}

/// Writes the whole history by COPY into the roots, `transaction_rows` rows of both tables a transaction, and calls `progress`
/// after each commit. The client must bypass row-level security, under which COPY is refused.
///
/// # Errors
/// [`DemoError::Sql`] with the server's message; nothing of the transaction that failed remains.
pub async fn load_history(
    client: &mut Client,
    history: History<'_>,
    transaction_rows: usize,
    mut progress: impl FnMut(Written),
) -> Result<Written, DemoError> {
    let mut written = Written::default();
    let mut history = history.peekable();
    let (mut events, mut hooks) = (Vec::new(), Vec::new());
    while history.peek().is_some() {
        for row in history.by_ref().take(transaction_rows.max(1)) {
            written.count(&row);
            row.write_copy_line(if matches!(row, Row::Event(_)) { &mut events } else { &mut hooks });
        }
        let transaction = client.transaction().await.map_err(DemoError::sql("begin"))?;
        for (statement, lines) in [(COPY_EVENTS, &mut events), (COPY_HOOKS, &mut hooks)] {
            if !lines.is_empty() {
                copy(&transaction, statement, Bytes::from(std::mem::take(lines))).await?;
            }
        }
        transaction.commit().await.map_err(DemoError::sql("commit"))?;
        progress(written);
    }
    Ok(written)
}

async fn copy(transaction: &Transaction<'_>, statement: &str, lines: Bytes) -> Result<(), DemoError> {
    let sink = transaction.copy_in(statement).await.map_err(DemoError::sql("copy rows"))?;
    let mut sink = std::pin::pin!(sink);
    sink.send(lines).await.map_err(DemoError::sql("copy rows"))?;
    sink.finish().await.map_err(DemoError::sql("copy rows"))?;
    Ok(())
}

/// Inserts rows one by one as the application does: its own role, its tenant set, `ON CONFLICT DO NOTHING`.
#[derive(Debug)]
pub struct Inserter {
    become_tenant: Statement,
    event: Statement,
    hook: Statement,
}

impl Inserter {
    /// Prepares the statements.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's message.
    pub async fn prepare(client: &Client) -> Result<Self, DemoError> {
        let failed = DemoError::sql;
        Ok(Self {
            become_tenant: client.prepare(BECOME_TENANT).await.map_err(failed("prepare an insert"))?,
            event: client.prepare(INSERT_EVENT).await.map_err(failed("prepare an insert"))?,
            hook: client.prepare(INSERT_HOOK).await.map_err(failed("prepare an insert"))?,
        })
    }

    /// Inserts one row in a transaction of its own; false when the key existed already.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's message.
    pub async fn insert_live(&self, client: &mut Client, row: &Row) -> Result<bool, DemoError> {
        let (statement, tenant, values): (_, _, Vec<Option<&str>>) = match row {
            Row::Event(event @ SecurityEvent { tenant_id, .. }) => (&self.event, tenant_id, event.values().to_vec()),
            Row::Hook(hook @ HookResult { tenant_id, .. }) => (&self.hook, tenant_id, hook.values().to_vec()),
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let transaction = client.transaction().await.map_err(DemoError::sql("begin"))?;
        transaction.query_one(&self.become_tenant, &[tenant]).await.map_err(DemoError::sql("set the tenant"))?;
        let inserted = transaction.execute(statement, &parameters).await.map_err(DemoError::sql("insert a row"))?;
        transaction.commit().await.map_err(DemoError::sql("commit"))?;
        Ok(inserted == 1)
    }
}
