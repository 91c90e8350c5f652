//! The guide's three questions: as it asks them, and as its author would ask them of the demo's data.

use chrono::{Datelike, Months, NaiveDate};

/// Section 6.3 of the archive guide, word for word.
const GUIDE: &str = include_str!("../queries.sql");

/// One statement each, with the comment above it and without the semicolon.
pub(super) fn of_the_guide() -> Vec<String> {
    GUIDE.split(';').map(|statement| statement.trim().to_owned()).filter(|statement| !statement.is_empty()).collect()
}

/// The same questions with a type, a tenant and a time that the data has.
pub(super) fn of_the_demo(tenant_id: &str, today: NaiveDate, history_days: u32) -> [String; 3] {
    let first = today - chrono::TimeDelta::days(i64::from(history_days));
    let month = today.checked_sub_months(Months::new(1)).unwrap_or(today).max(first);
    [
        format!(
            "SELECT tenant_id, user_id, created_at, substr(detail, 1, 40) AS detail\n\
             FROM idp_archive.security_event\n\
             WHERE year >= '{:04}' AND type = 'password_failure' AND tenant_id = '{tenant_id}'\n\
             ORDER BY created_at DESC\nLIMIT 5",
            first.year()
        ),
        format!(
            "SELECT tenant_id, type, COUNT(*) as event_count\n\
             FROM idp_archive.security_event\n\
             WHERE year = '{:04}' AND month = '{:02}'\n\
             GROUP BY tenant_id, type\nORDER BY event_count DESC\nLIMIT 10",
            month.year(),
            month.month()
        ),
        format!(
            "SELECT ip_address, COUNT(DISTINCT user_id) as affected_users, COUNT(*) as attempt_count\n\
             FROM idp_archive.security_event\n\
             WHERE type = 'password_failure' AND year >= '{:04}'\n\
             GROUP BY ip_address\nHAVING COUNT(*) > 100\nORDER BY attempt_count DESC",
            first.year()
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_asks_three_questions() {
        let questions = of_the_guide();
        assert_eq!(questions.len(), 3);
        assert!(questions.iter().all(|question| question.starts_with("-- ") && question.contains("\nSELECT\n")));
        assert!(questions[2].ends_with("ORDER BY attempt_count DESC"));
    }

    #[test]
    fn the_month_asked_for_is_one_that_the_history_reaches() {
        let today = NaiveDate::from_ymd_opt(2026, 1, 3).unwrap();
        assert!(of_the_demo("t", today, 120)[1].contains("year = '2025' AND month = '12'"));
        assert!(of_the_demo("t", today, 2)[1].contains("year = '2026' AND month = '01'"));
        assert!(of_the_demo("t", today, 120)[2].contains("year >= '2025'"));
    }
}
