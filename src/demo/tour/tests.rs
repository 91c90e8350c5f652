use super::*;

fn options(directory: &std::path::Path) -> TourOptions {
    let directory = Some(directory.to_owned());
    TourOptions { rows: 100, history_days: 1, live_seconds: 1, seed: 1, directory, keep: false }
}

fn unseen() -> Screen {
    Screen::new(Box::new(std::io::sink()), false)
}

#[tokio::test]
async fn an_interrupted_tour_says_so_and_can_be_repeated_at_once() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let result = run(&options(home.path()), &mut unseen(), std::future::ready(())).await;
        assert!(matches!(result, Err(DemoError::Interrupted)), "{result:?}");
    }
}

/// The executable that the tour calls here is this test's own, which knows no verb `init`.
#[tokio::test]
async fn a_verb_that_fails_ends_the_tour_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let result = run(&options(home.path()), &mut unseen(), std::future::pending()).await;
    assert!(matches!(result, Err(DemoError::Verb { verb: "init", .. })), "{result:?}");
    assert!(home.path().join("pipeline.toml").exists(), "what explains the failure stays");
}
