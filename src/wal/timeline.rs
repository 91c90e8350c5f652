//! The server's timeline history: where the WAL that it writes now left the WAL that it, or its ancestor, wrote before.

use crate::base::Lsn;

/// One line of a history file: a timeline that ended because a standby was promoted, or a server restored, at some point of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: u32,
    /// Where it was left: what that timeline wrote behind this position is not part of the newer ones.
    pub switched_at: Lsn,
}

/// Reads the content of a history file (`timeline.c`: parent, position and reason, parted by white space; `#` begins a comment).
/// `None` when a line is neither that nor empty.
pub(super) fn parse_history(content: &str) -> Option<Vec<TimelineSwitch>> {
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<TimelineSwitch> {
    let mut fields = line.split_whitespace();
    let timeline = fields.next()?.parse().ok().filter(|timeline| *timeline > 0)?;
    let switched_at = fields.next()?.parse().ok()?;
    Some(TimelineSwitch { timeline, switched_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_history_file_is_read_as_the_server_writes_it() {
        let content = "1\t0/3000000\tno recovery target specified\n\n# a comment\n2\t16/B374D848\tbefore 2026-01-01 00:00:00+00\n";
        let expected = [
            TimelineSwitch { timeline: 1, switched_at: Lsn(0x300_0000) },
            TimelineSwitch { timeline: 2, switched_at: Lsn(0x16_B374_D848) },
        ];
        assert_eq!(parse_history(content).as_deref(), Some(&expected[..]));
        assert_eq!(parse_history("").as_deref(), Some(&[][..]));
        assert_eq!(parse_history("1 0/1").map(|lines| lines.len()), Some(1), "a reason is not asked for");
        for broken in ["1", "one\t0/1\tx", "1\tnowhere\tx", "0\t0/1\tx", "-1\t0/1\tx", "1\t0/1\tx\n2"] {
            assert_eq!(parse_history(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_histories_never_panic(content in ".{0,80}") {
            let _ = parse_history(&content);
        }
    }
}
