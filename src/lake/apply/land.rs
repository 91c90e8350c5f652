//! Landing a segment whose rows changed: plan, journal, commit, and again from the start when the table moved (L2).

use super::old_images::OldImages;
use super::plan::{Figures, Plan, Planner};
use super::{ChangeSpool, Segment};
use crate::base::Lsn;
use crate::lake::error::LakeError;
use crate::lake::lock::TableLock;
use crate::lake::patience::Patience;
use crate::lake::staged::StagedFile;
use crate::lake::table::LakeTable;
use crate::lake::writer::{TableWriter, WriterOptions};
use crate::ops::fail_points;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// What a rewrite may take.
#[derive(Clone, Copy, Debug)]
pub struct Rewriter {
    /// For the files that it writes.
    pub writer: WriterOptions,
    /// Changes that are applied together, in memory.
    pub round_bytes: usize,
}

/// What is to land, where, and for how long the store is waited for.
struct Order<'a> {
    segment: &'a Arc<Segment>,
    joined: &'a [StagedFile],
    at: Lsn,
    patience: &'a Patience,
}

/// What landed.
pub struct Landed {
    /// Rows of the segment's files.
    pub rows: u64,
    /// What was rewritten.
    pub figures: Figures,
    /// The segment's own files that others stand for: nobody needs them any more.
    pub superseded: Vec<StagedFile>,
    /// The segment's changes, to be discarded.
    pub changes: ChangeSpool,
}

impl LakeTable {
    /// Lands a segment in which rows changed, and `joined` files that no change concerns, in one commit at `at`; old images of rows of the
    /// lake land in the journal first.
    ///
    /// # Errors
    /// As [`Self::land`]; [`LakeError::NoEarlierRow`]; a data file that cannot be read.
    pub async fn land_changes(
        &mut self,
        segment: Segment,
        joined: &[StagedFile],
        rewriter: &Rewriter,
        at: Lsn,
        patience: &Patience,
    ) -> Result<Landed, LakeError> {
        // One rewrite at a time: what it holds in memory is budgeted once.
        static TURN: Semaphore = Semaphore::const_new(1);
        let _turn = TURN.acquire().await;
        let lock = TableLock::acquire(self, "rewrite", patience).await?;
        fail_points::reach("lock.after_acquire");
        let segment = Arc::new(segment);
        let landed = self.land_planned(&segment, joined, rewriter, &lock, at, patience).await;
        fail_points::reach("lock.before_release");
        lock.release().await;
        let (kept, figures) = landed?;
        let Some(Segment { files, changes, .. }) = Arc::into_inner(segment) else {
            return Err(LakeError::Batch {
                location: self.log.location.clone(),
                reason: "a plan is still made".to_owned(),
            });
        };
        let rows = files.iter().chain(joined).map(StagedFile::rows).sum();
        let superseded = files.into_iter().enumerate().filter(|(place, _)| !kept.contains(place));
        Ok(Landed { rows, figures, superseded: superseded.map(|(_, file)| file).collect(), changes })
    }

    /// The places of the segment's files that are in the table now, and what was rewritten.
    async fn land_planned(
        &mut self,
        segment: &Arc<Segment>,
        joined: &[StagedFile],
        rewriter: &Rewriter,
        lock: &TableLock,
        at: Lsn,
        patience: &Patience,
    ) -> Result<(Vec<usize>, Figures), LakeError> {
        let (before, mut waiting) = (self.recorded, patience.begin());
        let mut planned: Option<(Plan, OldImages)> = None;
        loop {
            let order = Order { segment, joined, at, patience };
            let attempt = self.attempt(&mut planned, &order, rewriter, lock).await;
            if let Err(error) = attempt {
                // Whoever has the lock now may be rewriting the same files: the next start asks for it again.
                if matches!(error, LakeError::LockLost { .. }) {
                    return Err(error);
                }
                self.settle(&mut waiting, error).await?;
            }
            if self.recorded == at {
                break;
            }
            if self.recorded != before {
                return Err(LakeError::Overtaken { location: self.log.location.clone(), version: self.version });
            }
            // Whatever moved the table, the plan stands on a version that is no longer the newest.
            if let Some((plan, images)) = planned.take_if(|(plan, _)| plan.version != self.version) {
                plan.abandon().await;
                images.forget().await;
            }
        }
        waiting.worked(&self.log.location);
        let Some((plan, images)) = planned else {
            return Err(LakeError::Overtaken { location: self.log.location.clone(), version: self.version });
        };
        images.close();
        let Plan { mut writer, kept, figures, .. } = plan;
        writer.committed(self).await;
        if let Err(error) = writer.discard().await {
            tracing::debug!(%error, "what a rewrite left behind is removed later");
        }
        Ok((kept, figures))
    }

    /// One attempt: plans if there is no plan, lands the old images, and commits.
    async fn attempt(
        &mut self,
        planned: &mut Option<(Plan, OldImages)>,
        order: &Order<'_>,
        rewriter: &Rewriter,
        lock: &TableLock,
    ) -> Result<(), LakeError> {
        let Order { segment, joined, at, patience } = *order;
        if self.in_doubt {
            return Err(LakeError::InDoubt { location: self.log.location.clone() });
        }
        let (plan, images) = match planned {
            Some(planned) => planned,
            none => none.insert(self.plan(segment, rewriter, patience).await?),
        };
        lock.still_held(patience).await?;
        images.land(at, patience).await?;
        let kept = plan.kept.iter().filter_map(|place| segment.files.get(*place));
        let added: Vec<&StagedFile> = plan.added.iter().chain(kept).chain(joined).collect();
        self.commit_rewrite(&plan.removed, &added, &segment.replaces, at).await?;
        Ok(())
    }

    /// Reading, comparing and filtering take the processor for long, so that a thread beside the reactor does it.
    async fn plan(
        &mut self,
        segment: &Arc<Segment>,
        rewriter: &Rewriter,
        patience: &Patience,
    ) -> Result<(Plan, OldImages), LakeError> {
        self.catch_up().await?;
        let planner = Planner {
            log: self.log.clone(),
            version: self.version,
            writer: TableWriter::new(self, rewriter.writer, patience.clone())?,
            images: OldImages::of(self, rewriter.writer, patience.clone()),
            round_bytes: rewriter.round_bytes,
        };
        let (segment, reactor) = (Arc::clone(segment), Handle::current());
        let made = tokio::task::spawn_blocking(move || reactor.block_on(Box::pin(planner.plan(&segment)))).await;
        let made = made.map_err(|error| LakeError::Encode {
            location: self.log.location.clone(),
            reason: format!("planning a rewrite stopped ({error})"),
        })?;
        match made {
            Ok(made) => Ok(made),
            Err(failed) => {
                let (error, writer) = *failed;
                if let Err(error) = writer.discard().await {
                    tracing::debug!(%error, "what a rewrite left behind is removed later");
                }
                Err(error)
            }
        }
    }
}

impl Plan {
    /// The plan was not committed, and will not be: its files go.
    async fn abandon(self) {
        if let Err(error) = self.writer.abandon(self.added).await {
            tracing::debug!(%error, "what a rewrite left behind is removed later");
        }
    }
}
