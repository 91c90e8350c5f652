//! The first half of Q1: which statements may run, judged by their syntax before anything is looked up.

use super::error::QueryError;
use deltalake::datafusion::sql::parser::{DFParserBuilder, Statement};
use deltalake::datafusion::sql::sqlparser::ast::{SetExpr, Statement as Sql};

/// A statement that reads and does nothing else. Only [`parse`] makes one.
#[derive(Clone, Debug)]
pub struct ReadStatement(Statement);

impl ReadStatement {
    pub(super) fn into_inner(self) -> Statement {
        self.0
    }
}

/// Nesting that a person's query never reaches, and that the planner's recursion survives.
const NESTING_MAX: usize = 50;

/// The statements of `text`, separated by semicolons, in their order.
///
/// The whole text is judged before any of it runs: [`QueryError::Syntax`] with the position, [`QueryError::NoStatement`] for
/// an empty text, [`QueryError::ReadOnly`] for a statement that is not one of SELECT (WITH, VALUES, TABLE), EXPLAIN,
/// DESCRIBE and SHOW.
pub fn parse(text: &str) -> Result<Vec<ReadStatement>, QueryError> {
    let mut parser = DFParserBuilder::new(text)
        .with_recursion_limit(NESTING_MAX)
        .build()
        .map_err(|error| QueryError::from_datafusion(&error, 0))?;
    let statements =
        parser.parse_statements().map_err(|error| at_the_end(QueryError::from_datafusion(&error, 0), text))?;
    if statements.is_empty() {
        return Err(QueryError::NoStatement);
    }
    statements
        .into_iter()
        .map(|statement| match refused(&statement) {
            None => Ok(ReadStatement(statement)),
            Some(statement) => Err(QueryError::ReadOnly { statement }),
        })
        .collect()
}

/// Where the text ends too early the parser names no position: it is the end.
fn at_the_end(error: QueryError, text: &str) -> QueryError {
    match error {
        QueryError::Syntax { line: None, message, .. } if message.ends_with("found EOF") => {
            let text = text.trim_end();
            let count = |number: usize| u64::try_from(number).ok();
            let last = text.rsplit('\n').next().unwrap_or_default();
            let column = count(last.chars().count() + 1);
            QueryError::Syntax { line: count(text.matches('\n').count() + 1), column, message }
        }
        other => other,
    }
}

/// The leading words of a statement that does more than read.
fn refused(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(sql) => refused_sql(sql),
        Statement::Explain(explain) => refused(&explain.statement),
        Statement::CreateExternalTable(_) => Some("CREATE EXTERNAL TABLE".to_owned()),
        Statement::CopyTo(_) => Some("COPY".to_owned()),
        Statement::Reset(_) => Some("RESET".to_owned()),
    }
}

fn refused_sql(statement: &Sql) -> Option<String> {
    match statement {
        Sql::Query(query) => match query.body.as_ref() {
            SetExpr::Insert(write) | SetExpr::Update(write) | SetExpr::Delete(write) | SetExpr::Merge(write) => {
                Some(leading_words(&write.to_string()))
            }
            _ => None,
        },
        Sql::ExplainTable { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowFunctions { .. }
        | Sql::ShowVariable { .. } => None,
        Sql::Explain { statement, .. } => refused_sql(statement),
        other => Some(leading_words(&other.to_string())),
    }
}

/// The keywords before the first name, so that nothing of a literal is repeated.
fn leading_words(text: &str) -> String {
    let keyword = |word: &&str| word.chars().all(|letter| letter.is_ascii_uppercase());
    let words: Vec<&str> = text.split_whitespace().take_while(keyword).take(3).collect();
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_is_let_through() {
        for text in [
            "SELECT 1",
            "select 1; select 2;",
            "-- a comment\nWITH x AS (SELECT 1) SELECT * FROM x",
            "VALUES (1), (2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "DESCRIBE security_event",
            "SHOW TABLES",
            "SHOW COLUMNS FROM security_event",
            "SELECT ';' AS semicolon",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        assert_eq!(parse("select 1; select 2;").unwrap().len(), 2);
    }

    #[test]
    fn q1_what_writes_is_refused_before_anything_runs() {
        for (text, name) in [
            ("COPY (SELECT 1) TO 'x.csv'", "COPY"),
            ("COPY t TO '/tmp/x.parquet' STORED AS PARQUET", "COPY"),
            ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", "CREATE EXTERNAL TABLE"),
            ("CREATE TABLE x AS SELECT 1", "CREATE TABLE"),
            ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
            ("DROP TABLE security_event", "DROP TABLE"),
            ("INSERT INTO security_event VALUES (1)", "INSERT INTO"),
            ("UPDATE security_event SET type = 'secret'", "UPDATE"),
            ("DELETE FROM security_event", "DELETE FROM"),
            ("TRUNCATE TABLE security_event", "TRUNCATE TABLE"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("RESET datafusion.execution.batch_size", "RESET"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("BEGIN", "BEGIN"),
            ("WITH x AS (SELECT 1) INSERT INTO security_event SELECT * FROM x", "INSERT INTO"),
            ("EXPLAIN ANALYZE INSERT INTO security_event VALUES (1)", "INSERT INTO"),
            ("EXPLAIN COPY (SELECT 1) TO 'x.csv'", "COPY"),
            ("SELECT 1; DROP TABLE security_event", "DROP TABLE"),
        ] {
            let Err(error) = parse(text) else { panic!("{text} was let through") };
            let message = error.to_string();
            assert!(matches!(&error, QueryError::ReadOnly { statement } if statement.starts_with(name)), "{message}");
            assert!(message.lines().count() == 1 && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn what_is_not_sql_says_where() {
        let Err(QueryError::Syntax { line, column, .. }) = parse("SELECT 1;\nSELECT * FORM x") else {
            panic!("accepted");
        };
        assert_eq!((line, column.is_some()), (Some(2), true));
        assert!(matches!(parse("SELECT 1 +\n  "), Err(QueryError::Syntax { line: Some(1), column: Some(11), .. })));
        assert!(matches!(parse("SELECT 'open"), Err(QueryError::Syntax { line: Some(1), .. })));
        for text in ["", "  \n", ";;", "-- nothing"] {
            assert!(matches!(parse(text), Err(QueryError::NoStatement)), "{text:?}");
        }
        let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(matches!(parse(&deep), Err(QueryError::Syntax { .. })));
    }
}
