//! A connection of the demo's own: the client and the task that drives it, ended together.

use super::DemoError;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// An open connection; dropping it ends its driver.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    _driver: JoinSet<()>,
}

impl Connection {
    /// Connects without TLS: throw-away servers are reached over a Unix socket or 127.0.0.1.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's or the system's reason.
    pub async fn open(url: &str) -> Result<Self, DemoError> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(DemoError::sql("connect"))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // The client's next call reports the same error.
            let _ = connection.await;
        });
        Ok(Self { client, _driver: driver })
    }

    /// Runs statements; several run as one transaction unless they say otherwise.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's message.
    pub async fn execute(&self, sql: &str) -> Result<(), DemoError> {
        self.client.batch_execute(sql).await.map_err(DemoError::sql("run a statement"))
    }

    /// Runs statements and returns the rows of all of them as the server's text.
    ///
    /// # Errors
    /// [`DemoError::Sql`] with the server's message.
    pub async fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, DemoError> {
        let messages = self.client.simple_query(sql).await.map_err(DemoError::sql("run a query"))?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }
}

impl std::ops::Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}
