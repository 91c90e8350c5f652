//! Named places where a test can end the process as a crash would, or make it stand still while somebody else goes on.
//!
//! `LAKEBED_FAIL_POINTS="land.before_log_write=2"` kills the process (SIGKILL, no destructor runs) when it reaches the point the
//! second time; with `=2:stop` it stops there (SIGSTOP) until it is told to go on. Several are separated by commas. Builds without debug
//! assertions have no fail points at all.

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

    static POINTS: LazyLock<HashMap<String, Point>> =
        LazyLock::new(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));

    struct Point {
        /// Visits until something happens.
        left: AtomicU32,
        signal: libc::c_int,
    }

    pub(super) fn reach(name: &str) {
        if POINTS.is_empty() {
            return;
        }
        if let Some(Point { left, signal }) = POINTS.get(name)
            && left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            send(*signal);
        }
    }

    /// A signal to ourselves, which no handler sees: no destructor, no flush. It goes to this very thread, which so does not come back
    /// from the call; a signal to the process may reach another thread first and let this one run on for a while.
    #[allow(unsafe_code, reason = "raise(3) has no safe wrapper here")]
    fn send(signal: libc::c_int) {
        // SAFETY: a plain system call; no handler is installed for either signal.
        unsafe {
            libc::raise(signal);
        }
        if signal == libc::SIGKILL {
            std::process::abort();
        }
    }

    /// `name`, `name=times` or `name=times:stop`, separated by commas. What cannot be read never fires.
    fn parse(text: &str) -> HashMap<String, Point> {
        let one = |entry: &str| {
            let (name, times) = entry.split_once('=').unwrap_or((entry, "1"));
            let (times, signal) = match times.trim().strip_suffix(":stop") {
                Some(times) => (times, libc::SIGSTOP),
                None => (times, libc::SIGKILL),
            };
            let times: u32 = times.trim().parse().ok().filter(|times| *times > 0)?;
            Some((name.trim().to_owned(), Point { left: AtomicU32::new(times), signal }))
        };
        text.split(',').filter(|entry| !entry.trim().is_empty()).filter_map(one).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_named_with_the_visit_that_kills() {
            let points = parse("a.b=3, c ,d=x,e=0,f=2:stop");
            let of =
                |(name, point): (&String, &Point)| (name.clone(), point.left.load(Ordering::Relaxed), point.signal);
            let mut found: Vec<_> = points.iter().map(of).collect();
            found.sort_unstable();
            let expected = [("a.b", 3, libc::SIGKILL), ("c", 1, libc::SIGKILL), ("f", 2, libc::SIGSTOP)];
            assert_eq!(found, expected.map(|(name, left, signal)| (name.to_owned(), left, signal)));
        }
    }
}
