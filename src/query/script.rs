//! Runs the statements of one invocation and writes their answers, in order.

use super::engine::QueryEngine;
use super::error::QueryError;
use super::output::{Format, OutputError, ResultWriter};
use super::read_only::ReadStatement;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::record_batch::RecordBatch;
use futures::StreamExt;
use std::io::Write;
use tokio::sync::mpsc;

/// Batches between the engine and the writer: enough that neither waits for the other's every step.
const BATCHES_AHEAD: usize = 2;

/// What the writer is told: a statement's columns, then its rows.
enum Piece {
    Columns(SchemaRef),
    Rows(RecordBatch),
    End,
}

/// Runs `statements` one after the other and writes every answer to `out` in `format`; the number of rows written.
///
/// The first error ends the script; the rows before it were written. A reader who has seen enough (a closed pipe) ends it
/// quietly, and is no error. Dropping the future stops the work; a write to `out` that is under way ends by itself.
pub async fn run_script<W: Write + Send + 'static>(
    engine: &QueryEngine,
    statements: Vec<ReadStatement>,
    format: Format,
    out: W,
) -> Result<u64, QueryError> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let writer = tokio::task::spawn_blocking(move || write_pieces(receiver, format, out));
    let ran = run_statements(engine, statements, &sender).await;
    drop(sender);
    match writer.await {
        Ok(Ok(rows)) => ran.map(|()| rows),
        Ok(Err(OutputError::Closed)) => Ok(0),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(QueryError::Execution("the output thread ended early".to_owned())),
    }
}

/// Ends early, without an error of its own, when the writer has gone: the writer knows why.
async fn run_statements(
    engine: &QueryEngine,
    statements: Vec<ReadStatement>,
    writer: &mpsc::Sender<Piece>,
) -> Result<(), QueryError> {
    for statement in statements {
        let mut stream = engine.execute(statement).await?;
        if writer.send(Piece::Columns(stream.schema())).await.is_err() {
            return Ok(());
        }
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(|error| engine.sort_out(&error))?;
            if writer.send(Piece::Rows(batch)).await.is_err() {
                return Ok(());
            }
        }
        if writer.send(Piece::End).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// An answer without its `End` broke off: what there is of it is shown, but it is not closed as if it were whole.
fn write_pieces<W: Write>(mut pieces: mpsc::Receiver<Piece>, format: Format, out: W) -> Result<u64, OutputError> {
    let mut writer = ResultWriter::new(format, out);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Columns(schema) => writer.begin(&schema)?,
            Piece::Rows(batch) => writer.rows(&batch)?,
            Piece::End => writer.end()?,
        }
    }
    writer.finish()
}
