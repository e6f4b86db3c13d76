//! What arrives for the owner of a load: tensors, and at last the word that all are there.

#[cfg(feature = "cuda")]
use bevy::platform::time::Instant;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{WrapErr, cudarc::driver::DriverError};
use candle_core::{Device, Tensor};
use futures_lite::future;
#[cfg(feature = "cuda")]
use tracing::warn;

use super::{
    host_tensor::HostTensor,
    owner::{Arrived, HostNamed, ToOwner},
    plan::TensorPlan,
    weights::Weights,
};
#[cfg(feature = "cuda")]
use super::{
    lender::Lender,
    pinned::Pinned,
    staging::{Chunk, Stage},
    upload::{self, Upload},
};
use crate::{
    LoadError,
    lifeline::{DrainOnDrop, Watch},
};
#[cfg(feature = "cuda")]
use crate::{
    device::{hear_of_others, refuses_memory, sleep_until},
    memory::ensure_free,
};

/// Puts the tensors on the device as they arrive, until all are there.
pub(super) async fn collect<C>(
    inbox: &DrainOnDrop<ToOwner<C>>,
    watch: &Watch,
    device: &Device,
) -> Result<(C, Weights), LoadError> {
    let mut arrivals = Arrivals {
        weights: Weights::default(),
        #[cfg(feature = "cuda")]
        upload: None,
    };
    loop {
        match arrivals.next(inbox).await? {
            Some(ToOwner::Tensors(arrived)) => arrivals.put_whole(arrived, device).await?,
            #[cfg(feature = "cuda")]
            Some(ToOwner::Stage(stage)) => arrivals.stage(&stage, device)?,
            #[cfg(feature = "cuda")]
            Some(ToOwner::Chunk(chunk)) => {
                arrivals.put(chunk)?;
                future::yield_now().await;
            }
            Some(ToOwner::Build(config)) => {
                #[cfg(feature = "cuda")]
                arrivals.land().await?;
                return Ok((config, arrivals.weights));
            }
            // It was let go meanwhile: what is in use is noted before the tensors are dropped.
            Some(ToOwner::Failed) | None if watch.is_cut() => future::pending().await,
            // Where the ticket knows more, its error came first and stays.
            Some(ToOwner::Failed) | None => return Err(LoadError::Interrupted),
        }
    }
}

/// Puts a tensor on the device at once.
fn on_device(
    values: HostTensor,
    plan: &TensorPlan,
    device: &Device,
) -> candle_core::Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let (Device::Cuda(card), 0) = (device, plan.elements()) {
        let dtype = values.into_tensor(&plan.shape, &Device::Cpu)?.dtype();
        return upload::empty(card, dtype, &plan.shape);
    }
    values.into_tensor(&plan.shape, device)
}

struct Arrivals {
    weights: Weights,
    #[cfg(feature = "cuda")]
    upload: Option<Upload>,
}

impl Arrivals {
    /// What comes next; meanwhile copies come to their end.
    #[cfg(feature = "cuda")]
    async fn next<C>(
        &mut self,
        inbox: &DrainOnDrop<ToOwner<C>>,
    ) -> Result<Option<ToOwner<C>>, LoadError> {
        loop {
            let Some(look) = self.look()? else {
                return Ok(inbox.0.recv().await.ok());
            };
            let message = async { Some(inbox.0.recv().await.ok()) };
            let again = async {
                sleep_until(look).await;
                None
            };
            if let Some(message) = future::or(message, again).await {
                return Ok(message);
            }
        }
    }

    #[cfg(not(feature = "cuda"))]
    async fn next<C>(
        &mut self,
        inbox: &DrainOnDrop<ToOwner<C>>,
    ) -> Result<Option<ToOwner<C>>, LoadError> {
        Ok(inbox.0.recv().await.ok())
    }
}

impl Arrivals {
    /// Puts the tensors of a batch on the device as they are.
    async fn put_whole(
        &mut self,
        Arrived { tensors, _ticket }: Arrived,
        device: &Device,
    ) -> candle_core::Result<()> {
        for HostNamed { name, plan, values } in tensors {
            let tensor = on_device(values, &plan, device)?;
            self.weights.insert(name, tensor, plan.uses);
            // An upload takes its time: the jobs of others go on between two.
            future::yield_now().await;
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Arrivals {
    /// Looks at the copies. Returns when to do so again, where some are under way.
    fn look(&mut self) -> Result<Option<Instant>, LoadError> {
        match &mut self.upload {
            Some(upload) => Ok(upload.land()?),
            None => Ok(None),
        }
    }

    /// Waits until no copy is under way any more: then nobody needs the buffers.
    async fn land(&mut self) -> Result<(), LoadError> {
        while let Some(look) = self.look()? {
            sleep_until(look).await;
        }
        self.upload = None;
        Ok(())
    }

    /// Looks whether the card has room, and takes the buffers.
    fn stage(&mut self, stage: &Stage, device: &Device) -> Result<(), LoadError> {
        let Device::Cuda(card) = device else {
            return Ok(());
        };
        hear_of_others(device);
        ensure_free(stage.bytes, device)?;
        let lender = self.lend(Upload::new(card, stage))?;
        let _ = stage.tell.try_send(lender);
        Ok(())
    }

    /// Goes without pinned memory only where there is none to be had: any other error is the load's.
    fn lend(
        &mut self,
        upload: Result<Upload, DriverError>,
    ) -> candle_core::Result<Option<Lender<Pinned>>> {
        match upload {
            Err(error) if refuses_memory(error.0 as u32) => {
                warn!(
                    "tensors go to the card one by one, since there is no pinned memory: {error}"
                );
                Ok(None)
            }
            upload => Ok(Some(self.upload.insert(upload.w()?).lender())),
        }
    }

    fn put(&mut self, chunk: Chunk) -> Result<(), LoadError> {
        let upload = self.upload.as_mut().ok_or(LoadError::Interrupted)?;
        Ok(upload.put(chunk, &mut self.weights)?)
    }
}

#[cfg(test)]
mod tests {
    use async_channel::unbounded;
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::lifeline::Lifeline;

    /// What comes of a load that hears that it has failed.
    fn collect_failed(watch: &Watch) -> Option<Result<((), Weights), LoadError>> {
        let (sender, inbox) = unbounded();
        sender
            .try_send(ToOwner::Failed)
            .expect("the inbox is there");
        let inbox = DrainOnDrop(inbox);
        block_on(poll_once(collect(&inbox, watch, &Device::Cpu)))
    }

    #[test]
    fn a_load_that_fails_ends_at_once_and_one_that_is_let_go_leaves_that_to_its_owner() {
        let (lifeline, watch) = Lifeline::new();
        let failed = collect_failed(&watch);
        assert!(matches!(failed, Some(Err(LoadError::Interrupted))));
        drop(lifeline);
        assert!(collect_failed(&watch).is_none());
    }
}
