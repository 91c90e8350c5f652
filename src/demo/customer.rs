//! The first customer: an identity provider's database, exactly as it is run.

use super::{Cluster, DemoError};
use chrono::NaiveDate;

/// Name of the customer's database.
pub const DATABASE: &str = "idpserver";

/// What the customer's database looks like.
#[derive(Clone, Debug)]
pub struct CustomerOptions {
    /// Leaves reach this many days back. Those older than 90 days stay attached until somebody runs partman's maintenance.
    pub history_days: u32,
    /// Leaves reach this many days ahead; the customer's own value is 90.
    pub premake_days: u32,
    /// The day that both count from, in UTC; partman itself goes by the server's clock.
    pub today: NaiveDate,
}

impl CustomerOptions {
    /// The customer's own settings, counted from now.
    pub fn with_history(history_days: u32) -> Self {
        Self { history_days, premake_days: 90, today: chrono::Utc::now().date_naive() }
    }
}

/// Creates database, roles, tables, leaves and the maintenance job; with pg_partman and pg_cron where the server has them.
///
/// # Errors
/// [`DemoError::Sql`] with the server's message.
pub async fn create(cluster: &Cluster, options: &CustomerOptions) -> Result<(), DemoError> {
    cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
    let connection = cluster.connect(DATABASE).await?;
    connection.execute(include_str!("customer.sql")).await?;
    let settings = format!(
        "SET demo.today = '{}'; SET demo.history_days = {}; SET demo.premake = {}",
        options.today, options.history_days, options.premake_days
    );
    connection.execute(&settings).await?;
    if cluster.has_extensions() {
        connection.execute(include_str!("customer_partman.sql")).await?;
        cluster.execute("postgres", include_str!("customer_cron.sql")).await
    } else {
        connection.execute(include_str!("customer_by_hand.sql")).await
    }
}
