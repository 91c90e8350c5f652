//! Named places where a test can end the process as a crash would.
//!
//! `LAKEBED_FAIL_POINTS="land.before_log_write=2"` kills the process (SIGKILL, no destructor runs) when it reaches the point the
//! second time; several are separated by commas. Builds without debug assertions have no fail points at all.

/// A point was reached; in a test that asked for it, nothing after this line happens.
#[inline]
pub fn reach(name: &str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    const VARIABLE: &str = "LAKEBED_FAIL_POINTS";

    static POINTS: LazyLock<HashMap<String, AtomicU32>> =
        LazyLock::new(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));

    pub(super) fn reach(name: &str) {
        if POINTS.is_empty() {
            return;
        }
        if let Some(left) = POINTS.get(name)
            && left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            kill();
        }
    }

    /// SIGKILL to ourselves: no handler, no destructor, no flush.
    #[allow(unsafe_code, reason = "kill(2) has no safe wrapper here")]
    fn kill() {
        // SAFETY: plain system calls on our own process id.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
        std::process::abort();
    }

    /// `name` or `name=times`, separated by commas. What cannot be read never fires.
    fn parse(text: &str) -> HashMap<String, AtomicU32> {
        let one = |entry: &str| {
            let (name, times) = entry.split_once('=').unwrap_or((entry, "1"));
            times
                .trim()
                .parse()
                .ok()
                .filter(|times| *times > 0)
                .map(|times| (name.trim().to_owned(), AtomicU32::new(times)))
        };
        text.split(',').filter(|entry| !entry.trim().is_empty()).filter_map(one).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_named_with_the_visit_that_kills() {
            let points = parse("a.b=3, c ,d=x,e=0");
            let mut found: Vec<_> =
                points.iter().map(|(name, left)| (name.as_str(), left.load(Ordering::Relaxed))).collect();
            found.sort_unstable();
            assert_eq!(found, [("a.b", 3), ("c", 1)]);
        }
    }
}
