//! The owner of a load: a future on the device thread that keeps the tensors, builds the pipeline,
//! runs its jobs, and drops everything there.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use async_channel::{Receiver, Sender, unbounded};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use futures_lite::{FutureExt, future};
use tracing::error;

use super::{
    cast::HostTensor,
    plan::TensorPlan,
    progress::{LoadPhase, ProgressCell},
    steps::LoadSteps,
    ticket::Ticket,
    weights::Weights,
};
use crate::{
    LoadError, Pipeline,
    device::{DeviceContext, DeviceHandle},
    error::panic_message,
    infer::Job,
    lifeline::Watch,
    manager::{Event, Mailbox},
    memory,
};

/// What the readers and the load task send to the owner.
pub(super) enum ToOwner<C> {
    Tensor(Arrived),
    /// Every tensor has been sent.
    Build(C),
    /// The ticket says why.
    Failed,
}

/// A tensor on its way to the device thread. The ticket is the last field: it is dropped last.
pub(super) struct Arrived {
    pub(super) name: Arc<str>,
    pub(super) plan: TensorPlan,
    pub(super) values: HostTensor,
    pub(super) _ticket: Arc<Ticket>,
}

/// What a new owner needs.
pub(super) struct Hire<P: Pipeline> {
    pub(super) generation: u64,
    pub(super) watch: Watch,
    pub(super) dtype: DType,
    pub(super) progress: Arc<ProgressCell>,
    pub(super) jobs: Receiver<Job<P>>,
    pub(super) mailbox: Mailbox<P>,
}

/// How the load task reaches the owner. It keeps nothing alive.
pub(super) struct ToHired<C> {
    pub(super) inbox: Sender<ToOwner<C>>,
    pub(super) ticket: Weak<Ticket>,
}

/// Starts the owner of a load on the device thread.
pub(super) fn hire<P: Pipeline>(device: &DeviceHandle, hire: Hire<P>) -> ToHired<P::Config> {
    let (inbox, received) = unbounded();
    let mailbox = hire.mailbox.clone();
    let tell = move |gone| mailbox.send(Event::Gone(gone));
    let ticket = Arc::new(Ticket::new(
        hire.generation,
        hire.watch.clone(),
        device.clone(),
        tell,
    ));
    let hired = ToHired {
        inbox,
        ticket: Arc::downgrade(&ticket),
    };
    let owner = Owner {
        inbox: Emptied(received),
        jobs: Emptied(hire.jobs.clone()),
        hire,
        ticket,
    };
    device.run(move |context| owner.begin(context));
    hired
}

/// The ticket is the last field: it is dropped last.
struct Owner<P: Pipeline> {
    inbox: Emptied<ToOwner<P::Config>>,
    jobs: Emptied<Job<P>>,
    hire: Hire<P>,
    ticket: Arc<Ticket>,
}

/// A receiver whose messages are dropped with it, and not with the last sender somewhere else.
struct Emptied<T>(Receiver<T>);

impl<T> Drop for Emptied<T> {
    fn drop(&mut self) {
        self.0.close();
        while let Ok(message) = self.0.try_recv() {
            drop(message);
        }
    }
}

impl<P: Pipeline> Owner<P> {
    fn begin(self, context: &DeviceContext) {
        match &context.device {
            Ok(device) => context.executor.spawn(self.own(device.clone())).detach(),
            Err(source) => {
                let device = format!("{:?}", context.choice);
                self.ticket.fail(LoadError::Device {
                    device,
                    source: source.clone().into(),
                });
            }
        }
    }

    /// Lives until the load fails or nobody wants the model any more, whichever comes first.
    async fn own(self, device: Device) {
        // The ticket comes first, so that it is dropped last wherever this future ends.
        let Self {
            ticket,
            inbox,
            jobs,
            hire,
        } = self;
        let watch = hire.watch.clone();
        let mut life = Box::pin(live(&inbox, &jobs, &hire, &device));
        let unwanted = async {
            watch.cut().await;
            Ok(())
        };
        if let Err(error) = future::or(unwanted, life.as_mut()).await {
            ticket.fail(error);
        }
        memory::settle(&device);
        ticket.before_release(&device);
        // A panic in a pipeline's own `Drop` must not take the ticket with it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(life))) {
            error!(
                "a pipeline panicked while it was dropped: {}",
                panic_message(&*panic)
            );
        }
        drop((inbox, jobs, hire));
        drop(ticket);
    }
}

/// From the first tensor to the last job.
async fn live<P: Pipeline>(
    inbox: &Emptied<ToOwner<P::Config>>,
    jobs: &Emptied<Job<P>>,
    hire: &Hire<P>,
    device: &Device,
) -> Result<(), LoadError> {
    let (config, weights) = collect(inbox, device).await?;
    let weights = weights.into_var_builder(hire.dtype, device.clone());
    let pipeline = build::<P>(config, weights, hire).await?;
    hire.progress.enter(LoadPhase::Done);
    let sample_size = caught("sample_size", async { Ok(pipeline.sample_size()) }).await?;
    hire.mailbox.send(Event::Built {
        generation: hire.generation,
        sample_size,
    });
    while let Ok(job) = jobs.0.recv().await {
        job.run(&pipeline).await;
    }
    Ok(())
}

/// Puts the tensors on the device as they arrive, until all are there.
async fn collect<C>(
    inbox: &Emptied<ToOwner<C>>,
    device: &Device,
) -> Result<(C, Weights), LoadError> {
    let mut weights = Weights::default();
    loop {
        match inbox.0.recv().await {
            Ok(ToOwner::Tensor(arrived)) => {
                let tensor = arrived.values.into_tensor(&arrived.plan.shape, device)?;
                weights.insert(arrived.name, tensor, arrived.plan.uses);
            }
            Ok(ToOwner::Build(config)) => return Ok((config, weights)),
            // Where the ticket knows more, its error came first and stays.
            Ok(ToOwner::Failed) | Err(_) => return Err(LoadError::DeviceLost),
        }
    }
}

async fn build<P: Pipeline>(
    config: P::Config,
    weights: VarBuilder<'static>,
    hire: &Hire<P>,
) -> Result<P, LoadError> {
    let steps = LoadSteps::default();
    hire.enter(LoadPhase::Building);
    let pipeline = caught("build", async { P::build(config, weights, &steps).await }).await?;
    hire.enter(LoadPhase::WarmingUp);
    caught("warm_up", async { pipeline.warm_up(&steps).await }).await?;
    Ok(pipeline)
}

impl<P: Pipeline> Hire<P> {
    fn enter(&self, phase: LoadPhase) {
        self.progress.enter(phase);
        self.mailbox.wake();
    }
}

/// Awaits a pipeline's code; a panic becomes an error.
async fn caught<T>(
    phase: &'static str,
    work: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| {
            Err(LoadError::Panicked {
                phase,
                message: panic_message(&*panic),
            })
        })
}
