//! The owner of a load: a future on the device thread that keeps the tensors, builds the pipeline,
//! runs its jobs, and drops everything there.

use std::sync::{Arc, Weak};

use async_channel::{Receiver, Sender, unbounded};
use candle_core::DType;
use candle_nn::VarBuilder;
use futures_lite::future;

#[cfg(feature = "cuda")]
use super::staging::{Chunk, Stage};
use super::{
    arrivals::collect,
    host_tensor::HostTensor,
    load_steps::LoadSteps,
    plan::TensorPlan,
    progress::{LoadPhase, ProgressCell},
    readers::ReaderHandle,
    ticket::Ticket,
};
use crate::{
    LoadError, Pipeline,
    device::{DeviceContext, DeviceHandle, Lent, hear_of_others},
    frame_guard::Rest,
    infer::{Job, serve},
    lifeline::{DrainOnDrop, Watch},
    mailbox::{Built, Event, Mailbox},
    memory::Account,
    panics::{DropGuarded, caught_async},
};

/// What the readers and the load task send to the owner.
pub(super) enum ToOwner<C> {
    Tensors(Arrived),
    /// The readers want buffers for a card.
    #[cfg(feature = "cuda")]
    Stage(Stage),
    /// Parts of tensors, in such a buffer.
    #[cfg(feature = "cuda")]
    Chunk(Chunk),
    /// Every tensor has been sent.
    Build(C),
    /// The ticket says why.
    Failed,
}

/// Tensors on their way to the device thread, all of a batch: to wake it for each would cost more than small ones take.
/// The ticket is the last field: it is dropped last.
pub(super) struct Arrived {
    pub(super) tensors: Vec<HostNamed>,
    pub(super) _ticket: Arc<Ticket>,
}

/// A tensor that was read, and what it is.
pub(super) struct HostNamed {
    pub(super) name: Arc<str>,
    pub(super) plan: TensorPlan,
    pub(super) values: HostTensor,
}

/// What an owner needs.
pub(super) struct OwnerSetup<P: Pipeline> {
    pub(super) generation: u64,
    pub(super) watch: Watch,
    pub(super) dtype: DType,
    pub(super) progress: Arc<ProgressCell>,
    pub(super) account: Arc<Account>,
    pub(super) jobs: Receiver<Job<P>>,
    pub(super) mailbox: Mailbox<P>,
}

/// How the load task reaches the owner. It keeps nothing alive.
pub(super) struct OwnerLink<C> {
    pub(super) inbox: Sender<ToOwner<C>>,
    pub(super) ticket: Weak<Ticket>,
}

/// Starts the owner of a load on the device thread.
pub(super) fn spawn_owner<P: Pipeline>(
    device: &DeviceHandle,
    readers: &ReaderHandle,
    rest: &Rest,
    setup: OwnerSetup<P>,
) -> OwnerLink<P::Config> {
    let (inbox, received) = unbounded();
    let ticket = Arc::new(setup.ticket(device, readers, rest));
    let link = OwnerLink {
        inbox,
        ticket: Arc::downgrade(&ticket),
    };
    let owner = Owner {
        inbox: DrainOnDrop(received),
        jobs: DrainOnDrop(setup.jobs.clone()),
        setup,
        ticket,
    };
    device.run(move |context| owner.begin(context));
    link
}

/// The ticket is the last field: it is dropped last.
struct Owner<P: Pipeline> {
    inbox: DrainOnDrop<ToOwner<P::Config>>,
    jobs: DrainOnDrop<Job<P>>,
    setup: OwnerSetup<P>,
    ticket: Arc<Ticket>,
}

impl<P: Pipeline> Owner<P> {
    fn begin(self, context: &DeviceContext) {
        match context.lend() {
            Ok(lent) => context.executor.spawn(self.own(lent)).detach(),
            Err(source) => {
                let device = format!("{:?}", context.choice);
                self.ticket.fail(LoadError::Device {
                    device,
                    source: source.into(),
                });
            }
        }
    }

    /// Lives until the load fails or nobody wants the model any more, whichever comes first.
    async fn own(self, lent: Lent) {
        // The ticket comes first, so that it is dropped last wherever this future ends.
        let Self {
            ticket,
            inbox,
            jobs,
            setup,
        } = self;
        let watch = setup.watch.clone();
        let life = Box::pin(live(&inbox, &jobs, &setup, &lent, &ticket));
        let mut life = DropGuarded::new("a model", life);
        let unwanted = async {
            watch.cut().await;
            Ok(())
        };
        match future::or(unwanted, life.as_mut()).await {
            Ok(()) => prepare_release(&lent, &ticket).await,
            // What failed has been dropped already: there is nothing to measure.
            Err(error) => ticket.fail(lent.load_error(error, ticket.claimed())),
        }
        drop(life);
        drop((inbox, jobs, setup));
        drop(ticket);
    }
}

/// Waits for the end of a frame, and notes what is in use.
async fn prepare_release(lent: &Lent, ticket: &Ticket) {
    ticket.rest().pass().await;
    if lent.settle() {
        ticket.before_release(&lent.device);
    }
}

/// From the first tensor to the last job.
async fn live<P: Pipeline>(
    inbox: &DrainOnDrop<ToOwner<P::Config>>,
    jobs: &DrainOnDrop<Job<P>>,
    setup: &OwnerSetup<P>,
    lent: &Lent,
    ticket: &Ticket,
) -> Result<(), LoadError> {
    let (config, weights) = collect(inbox, &setup.watch, &lent.device).await?;
    if !lent.device.is_cpu() {
        ticket.leave_heap();
    }
    let weights = weights.into_var_builder(setup.dtype, lent.device.clone());
    hear_of_others(&lent.device);
    let pipeline = build::<P>(config, weights, setup).await?;
    setup.progress.enter(LoadPhase::Done);
    let sample_size = caught_async("sample_size", async { Ok(pipeline.sample_size()) }).await?;
    setup.mailbox.send(Event::Built(Built {
        generation: setup.generation,
        sample_size,
    }));
    serve(&*pipeline, jobs, &setup.account, lent).await;
    if !lent.is_lost() {
        // Its handle went while it computed: what is in use is noted before the pipeline is dropped.
        future::pending::<()>().await;
    }
    Ok(())
}

async fn build<P: Pipeline>(
    config: P::Config,
    weights: VarBuilder<'static>,
    setup: &OwnerSetup<P>,
) -> Result<DropGuarded<P>, LoadError> {
    let steps = LoadSteps::default();
    setup.enter(LoadPhase::Building);
    let pipeline = caught_async("build", async { P::build(config, weights, &steps).await }).await?;
    let pipeline = DropGuarded::new("a pipeline's drop", pipeline);
    setup.enter(LoadPhase::WarmingUp);
    caught_async("warm_up", async { pipeline.warm_up(&steps).await }).await?;
    Ok(pipeline)
}

impl<P: Pipeline> OwnerSetup<P> {
    fn ticket(&self, device: &DeviceHandle, readers: &ReaderHandle, rest: &Rest) -> Ticket {
        let mailbox = self.mailbox.clone();
        let tell = move |gone| mailbox.send(Event::Gone(gone));
        Ticket::new(
            self.generation,
            self.watch.clone(),
            self.account.clone(),
            device.clone(),
            readers.clone(),
            rest.clone(),
            tell,
        )
    }

    fn enter(&self, phase: LoadPhase) {
        self.progress.enter(phase);
        self.mailbox.wake();
    }
}
