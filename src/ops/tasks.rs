//! Owned tasks: every stage has a name, and none ends unnoticed.

use std::collections::HashMap;
use std::future::Future;
use tokio::task::{Id, JoinSet};

/// How a stage ended, when it did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StageFailure<E> {
    /// The stage returned its error.
    #[error(transparent)]
    Failed(E),
    /// The stage panicked; the panic's own message is on standard error.
    #[error("the {stage} stage panicked: this is a defect of lakebed; restart it, nothing unacknowledged is lost")]
    Panicked {
        /// Its name.
        stage: &'static str,
    },
}

/// The running stages of a pipeline. Dropping it aborts them all.
#[derive(Debug)]
pub struct Stages<E> {
    set: JoinSet<Result<(), E>>,
    names: HashMap<Id, &'static str>,
}

impl<E: Send + 'static> Default for Stages<E> {
    fn default() -> Self {
        Self { set: JoinSet::new(), names: HashMap::new() }
    }
}

impl<E: Send + 'static> Stages<E> {
    /// Starts a stage that this value owns from now on.
    pub fn start(&mut self, name: &'static str, stage: impl Future<Output = Result<(), E>> + Send + 'static) {
        let handle = self.set.spawn(stage);
        self.names.insert(handle.id(), name);
    }

    /// Waits until a stage ends: its name, and its failure if it failed. `None` when none is left. Cancel-safe.
    pub async fn next_end(&mut self) -> Option<(&'static str, Result<(), StageFailure<E>>)> {
        let (id, outcome) = match self.set.join_next_with_id().await? {
            Ok((id, Ok(()))) => (id, Ok(())),
            Ok((id, Err(error))) => (id, Err(Some(error))),
            Err(join_error) => (join_error.id(), Err(None)),
        };
        let stage = self.names.remove(&id).unwrap_or("unnamed");
        let outcome = outcome.map_err(|error| match error {
            Some(error) => StageFailure::Failed(error),
            None => StageFailure::Panicked { stage },
        });
        Some((stage, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_with_the_stages_name() {
        let mut stages = Stages::<String>::default();
        stages.start("decode", async { panic!("on purpose") });
        let (name, end) = stages.next_end().await.unwrap();
        assert_eq!(name, "decode");
        assert!(matches!(end, Err(StageFailure::Panicked { stage: "decode" })));
        assert!(stages.next_end().await.is_none());
    }

    #[tokio::test]
    async fn an_error_is_reported_while_others_run_on() {
        let mut stages = Stages::default();
        stages.start("quiet", std::future::pending());
        stages.start("lake", async { Err("full".to_owned()) });
        let (name, end) = stages.next_end().await.unwrap();
        assert_eq!(name, "lake");
        assert!(matches!(end, Err(StageFailure::Failed(reason)) if reason == "full"));
    }
}
