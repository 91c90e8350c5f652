//! The exit code and the one line of everything that `run` can end with.

use super::{Exit, exit_of, one_line};
use crate::base::remedies::assert_line;
use crate::connect::SettingsError;
use crate::lake::LakeError;
use crate::pipeline::PipelineError;
use crate::pipeline::remedy_test::{every, every_wrapped};
use anyhow::Context;

#[test]
fn every_end_of_run_is_one_line_with_its_remedy_and_code_1_or_2_for_configuration() {
    for case in every().into_iter().chain(every_wrapped()) {
        let configuration =
            matches!(case.error, PipelineError::Settings(_) | PipelineError::Lake(LakeError::Location { .. }));
        let error = anyhow::Error::from(case.error);
        let line = one_line(&error);
        assert_line(&line, case.words);
        assert!(line.starts_with("lakebed: "), "{line}");
        assert_eq!(exit_of(&error), if configuration { Exit::Usage } else { Exit::Failed }, "{line}");
    }
}

/// Nothing is said twice, however the causes are chained.
#[test]
fn a_cause_is_said_once_and_found_below_any_context() {
    let error = Err::<(), _>(PipelineError::Settings(SettingsError::NoUser)).context("--admin-url").unwrap_err();
    let line = one_line(&error);
    assert_eq!(line.matches("no role to connect as").count(), 1, "{line}");
    assert_eq!(exit_of(&error), Exit::Usage);
    assert_eq!(exit_of(&anyhow::anyhow!("something else")), Exit::Failed);
    let lines = anyhow::anyhow!("one\r\ntwo").context("three");
    assert_eq!(one_line(&lines), "lakebed: three: one  two");
}
