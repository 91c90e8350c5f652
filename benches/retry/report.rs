//! The figures of each case, as a table and as one JSON line.

use crate::measure::median;
use crate::options::Options;

/// What one case took. For the single retries it is one of them.
pub(crate) struct Case {
    pub(crate) updates: u32,
    /// Of the table before.
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// Commits that rewrote files.
    pub(crate) flushes: usize,
    pub(crate) files_rewritten: usize,
    pub(crate) bytes_rewritten: u64,
    /// From the last commit in the source to the commit in the lake.
    pub(crate) visible_seconds: f64,
    /// Of these, what the rewrite itself took.
    pub(crate) rewrite_seconds: f64,
    pub(crate) old_images: u64,
    pub(crate) peak_mib: u64,
}

/// Prints all cases; of the single retries, the medians of their times and the most of everything else.
pub(crate) fn print(options: &Options, rows: u64, singles: &[Case], others: &[(&str, Case)]) {
    let Options { days, rows_per_day, max_age, .. } = options;
    println!(
        "\n{days} days of {rows_per_day} rows, {rows} rows in the end, every one equal to its source; max_age {max_age}"
    );
    println!(
        "| retries | files there | rewritten | MB of them | flushes | visible after s | of which rewriting s | old images | peak MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut json = Vec::new();
    let (name, most) = (format!("single, median of {}", singles.len()), most(singles));
    let cases = std::iter::once((name.as_str(), &most)).chain(others.iter().map(|(name, case)| (*name, case)));
    for (name, case) in cases {
        println!("{}", line(name, case));
        json.push(serde_json::json!({
            "what": name, "updates": case.updates, "files": case.files, "bytes": case.bytes, "flushes": case.flushes,
            "files_rewritten": case.files_rewritten, "bytes_rewritten": case.bytes_rewritten, "old_images": case.old_images,
            "visible_seconds": case.visible_seconds, "rewrite_seconds": case.rewrite_seconds, "peak_mib": case.peak_mib,
        }));
    }
    println!("{}", serde_json::json!({"bench": "retry", "days": days, "rows_per_day": rows_per_day, "cases": json}));
}

fn most(singles: &[Case]) -> Case {
    let most = |figure: fn(&Case) -> u64| singles.iter().map(figure).max().unwrap_or(0);
    Case {
        updates: 1,
        files: most(|case| case.files as u64) as usize,
        bytes: most(|case| case.bytes),
        flushes: most(|case| case.flushes as u64) as usize,
        files_rewritten: most(|case| case.files_rewritten as u64) as usize,
        bytes_rewritten: most(|case| case.bytes_rewritten),
        visible_seconds: median(singles.iter().map(|case| case.visible_seconds)),
        rewrite_seconds: median(singles.iter().map(|case| case.rewrite_seconds)),
        old_images: most(|case| case.old_images),
        peak_mib: most(|case| case.peak_mib),
    }
}

fn line(name: &str, case: &Case) -> String {
    let updates = if case.updates > 1 { format!("{} in ", case.updates) } else { String::new() };
    format!(
        "| {updates}{name} | {} ({:.1} MB) | {} | {:.1} | {} | {:.2} | {:.2} | {} | {} |",
        case.files,
        case.bytes as f64 / 1e6,
        case.files_rewritten,
        case.bytes_rewritten as f64 / 1e6,
        case.flushes,
        case.visible_seconds,
        case.rewrite_seconds,
        case.old_images,
        case.peak_mib,
    )
}
