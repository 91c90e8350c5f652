//! Logs go to standard error: text on a terminal, one JSON object a line otherwise. `RUST_LOG` sets the levels.
//!
//! No cell value and no secret is ever logged; spans and fields carry names, counts and positions only.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What is shown unless `RUST_LOG` says otherwise: our own progress, and only warnings of the libraries. The Delta kernel logs as an ERROR
/// what it also returns, and what is then waited out or said with its remedy.
const DEFAULT_LEVELS: &str = "warn,lakebed=info,buoyant_kernel=off";

/// Installs the process-wide logger; a second call changes nothing.
pub fn start(default_levels: Option<&str>) {
    let levels = default_levels.unwrap_or(DEFAULT_LEVELS);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(levels));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let installed = if terminal { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    if installed.is_err() {
        tracing::debug!("a logger is installed already");
    }
}
