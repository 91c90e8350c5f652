//! What `--dry-run` prints: a script for psql in the pipeline's database. What does not belong there stands in comments.

use super::beginning::Beginning;
use super::lake_side::LakeSide;
use crate::source::Step;

/// The whole script.
pub(super) fn text(steps: &[Step], cron: &[Step], (beginning, slot): (Beginning, &str), lake: &LakeSide) -> String {
    let mut text = String::from("-- lakebed init --dry-run: nothing was changed\nSET search_path = '';\nBEGIN;\n");
    for step in steps {
        if step.present {
            text.push_str(&already_there(step));
        } else {
            text.push_str(&format!("\n-- {}\n{}", one_line(&step.what), step.sql));
        }
    }
    text.push_str("\nCOMMIT;\n");
    if steps.iter().any(|step| !step.present && step.what.starts_with("login ")) {
        text.push_str("\n-- The login's password is not printed. Set it with psql's \\password.\n");
    }
    text.push_str(slot);
    text.push_str(&lake.dry_run_text(beginning));
    text.extend(cron.iter().map(in_another_database));
    text
}

fn already_there(step: &Step) -> String {
    format!("\n-- already there: {}\n", one_line(&step.what))
}

/// pg_cron lives elsewhere, and whoever registers the job is whom it runs as, so piping the script into psql must not do it.
fn in_another_database(step: &Step) -> String {
    if step.present {
        return already_there(step);
    }
    let lines = step.sql.split(['\n', '\r']).map(|line| format!("-- {line}\n"));
    let head = "-- In the database and as the user of --cron-url, not here; take \"-- \" away there:";
    format!("\n{head}\n-- {}\n{}", one_line(&step.what), lines.collect::<String>())
}

/// A name of the catalog in a comment: a line break in it would end the comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_comment() {
        assert_eq!(one_line("SELECT on 監査\nDROP TABLE a;\r--"), "SELECT on 監査?DROP TABLE a;?--");
    }

    #[test]
    fn the_cron_part_is_a_comment_whatever_the_names_hold() {
        let sql = "-- sql/08\nSELECT cron.schedule('a\r\\! b\nc');".to_owned();
        let text = in_another_database(&Step { what: "cron job for database a\nb".into(), present: false, sql });
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with("--")) && !text.contains('\r'), "{text}");
    }
}
