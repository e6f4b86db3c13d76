//! The load task: it plans, claims and hands out work on Bevy's `AsyncComputeTaskPool`, and owns no
//! weights. Every await is short, so the pool is never held.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use candle_core::DType;

use super::{
    batch::{batches, gets_huge_pages},
    owner::{OwnerLink, ToOwner},
    plan::{TensorPlan, sum},
    plan_files::PlanFiles,
    progress::{LoadPhase, ProgressCell},
    readers::ReaderHandle,
    reading::{Reading, Share},
    shares::Shares,
    ticket::Ticket,
};
#[cfg(feature = "cuda")]
use super::{lender::Lender, pinned::Pinned, staging::Stage};
use crate::{
    DeviceChoice, LoadError, Pipeline,
    lifeline::Watch,
    memory::{self, Account, Answer},
    panics::caught,
    signal::Signal,
    source::HeldFiles,
};

/// Everything that one load needs, apart from memory.
pub(super) struct LoadTask<P: Pipeline> {
    pub(super) files: HeldFiles,
    pub(super) dtype: DType,
    pub(super) account: Arc<Account>,
    pub(super) watch: Watch,
    pub(super) readers: ReaderHandle,
    pub(super) progress: Arc<ProgressCell>,
    pub(super) signal: Signal,
    pub(super) owner: OwnerLink<P::Config>,
}

type Tensors = BTreeMap<Arc<str>, TensorPlan>;

impl<P: Pipeline> LoadTask<P> {
    /// Plans, claims and reads. The owner then builds; a failure is written on the ticket.
    pub(super) async fn run(self) {
        let message = match self.load().await {
            Ok(config) => ToOwner::Build(config),
            Err(error) => {
                self.fail(error);
                ToOwner::Failed
            }
        };
        let _ = self.owner.inbox.try_send(message);
    }

    /// Who was interrupted does not know by what: the owner does, or else says the same.
    fn fail(&self, error: LoadError) {
        if matches!(error, LoadError::Interrupted) {
            return;
        }
        if let Some(ticket) = self.owner.ticket.upgrade() {
            ticket.fail(error);
        }
    }

    async fn load(&self) -> Result<P::Config, LoadError> {
        let (config, tensors) = self.plan().await?;
        let needed = sum(tensors.values().map(|tensor| tensor.run_bytes(self.dtype)));
        // Before others are sent away for it, and again when they are gone.
        if let Some(others) = self.account.in_use_where_fits(needed) {
            self.ensure_available(needed, others).await?;
        }
        self.claim(needed).await?;
        self.ensure_available(needed, 0).await?;
        self.read(tensors).await?;
        Ok(config)
    }

    async fn plan(&self) -> Result<(P::Config, Tensors), LoadError> {
        let (files, ticket) = (self.files.clone(), self.owner.ticket.clone());
        let (dtype, device) = (self.dtype, self.account.holder().device);
        let plan = move || {
            // Held while headers are in memory, and asked: a cancelled load is not planned.
            let ticket = ticket
                .upgrade()
                .filter(|ticket| ticket.is_wanted_after_rest());
            let ticket = ticket.ok_or(LoadError::Interrupted)?;
            let files = PlanFiles {
                files: &*files,
                ticket: &ticket,
            };
            // Here, and not only around all of it: what it holds is not dropped while a panic unwinds.
            caught("plan", || {
                let plan = P::plan(&files)?;
                plan.ensure_runs_in(dtype, device)?;
                Ok(plan)
            })
        };
        let plan = self.readers.run("plan", plan).await?;
        let (config, tensors) = plan.into_parts();
        self.progress
            .expect(sum(tensors.values().map(TensorPlan::stored_bytes)));
        self.enter(LoadPhase::Waiting);
        Ok((config, tensors))
    }

    /// Claims the model's part of the budget, before one byte is allocated; waits where others make room.
    async fn claim(&self, needed: u64) -> Result<(), LoadError> {
        let (tell, told) = async_channel::bounded(1);
        let ticket = self.owner.ticket.clone();
        self.account
            .claim(needed, self.watch.clone(), move |answer| {
                let _ = tell.try_send(keep(&ticket, answer));
            });
        told.recv().await.unwrap_or(Err(LoadError::Interrupted))
    }

    /// The budget may have room where the system has less. A card's memory is its own.
    async fn ensure_available(&self, needed: u64, releasable: u64) -> Result<(), LoadError> {
        if matches!(self.account.holder().device, DeviceChoice::Cuda(_)) {
            return Ok(());
        }
        if !memory::is_worth_a_look(needed) {
            return Ok(());
        }
        let look = move || memory::ensure_available(needed, releasable);
        self.readers.run("plan", look).await
    }

    /// Has the readers read everything, and waits until the last of them is done.
    async fn read(&self, tensors: Tensors) -> Result<(), LoadError> {
        self.enter(LoadPhase::Reading);
        #[cfg(feature = "cuda")]
        let lender = self.stage(&tensors).await?;
        let bytes = sum(tensors.values().map(|tensor| tensor.run_bytes(self.dtype)));
        let reading = Arc::new(Reading {
            files: self.files.clone(),
            dtype: self.dtype,
            progress: self.progress.clone(),
            owner: self.owner.inbox.clone(),
            signal: self.signal.clone(),
            huge_pages: gets_huge_pages(bytes),
            #[cfg(feature = "cuda")]
            lender,
        });
        let (done, finished) = async_channel::unbounded();
        let batches = batches(tensors, self.dtype);
        let mut unread = batches.len();
        let share = |place| Share {
            reading: reading.clone(),
            place,
            ticket: self.owner.ticket.clone(),
            done: done.clone(),
        };
        let shares = (0..).map(share).zip(batches).collect();
        Shares::new(shares, self.readers.clone()).begin();
        drop((done, reading));
        while finished.recv().await.is_ok() {
            unread -= 1;
        }
        // Where a read failed, the ticket has its error already; where the owner did, it says so.
        if unread == 0 {
            Ok(())
        } else {
            Err(LoadError::Interrupted)
        }
    }

    /// Has the owner lend buffers to the readers, where the weights go to a card.
    #[cfg(feature = "cuda")]
    async fn stage(&self, tensors: &Tensors) -> Result<Option<Lender<Pinned>>, LoadError> {
        let bytes = sum(tensors.values().map(|tensor| tensor.run_bytes(self.dtype)));
        let is_card = matches!(self.account.holder().device, DeviceChoice::Cuda(_));
        if !is_card || bytes == 0 {
            return Ok(None);
        }
        let (tell, told) = async_channel::bounded(1);
        let home = |ticket: Arc<Ticket>| ticket.device().clone();
        let home = self.owner.ticket.upgrade().map(home);
        let stage = Stage {
            bytes,
            dtype: self.dtype,
            home: home.ok_or(LoadError::Interrupted)?,
            readers: self.readers.clone(),
            tell,
        };
        let _ = self.owner.inbox.try_send(ToOwner::Stage(stage));
        // Where the card has no room, the owner says so.
        told.recv().await.map_err(|_| LoadError::Interrupted)
    }

    fn enter(&self, phase: LoadPhase) {
        self.progress.enter(phase);
        self.signal.raise();
    }
}

/// Puts a granted claim where it is given back with the memory, and not with this task, which the pool may drop
/// late.
fn keep(ticket: &Weak<Ticket>, answer: Answer) -> Result<(), LoadError> {
    match answer {
        Answer::Granted(claim) => {
            ticket.upgrade().ok_or(LoadError::Interrupted)?.keep(claim);
            Ok(())
        }
        Answer::OverBudget(shortage) => Err(shortage.into()),
        Answer::Return => Err(LoadError::Interrupted),
    }
}
