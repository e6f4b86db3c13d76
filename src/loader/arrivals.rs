//! What arrives for the owner of a load: tensors, and at last the word that all are there.

#[cfg(feature = "cuda")]
use std::time::Instant;

use candle_core::Device;
use futures_lite::future;
#[cfg(feature = "cuda")]
use tracing::warn;

use super::{owner::ToOwner, weights::Weights};
#[cfg(feature = "cuda")]
use super::{
    staging::{Chunk, Stage},
    upload::Upload,
};
use crate::{LoadError, lifeline::DrainOnDrop};
#[cfg(feature = "cuda")]
use crate::{device::sleep_until, memory::ensure_free};

/// Puts the tensors on the device as they arrive, until all are there.
pub(super) async fn collect<C>(
    inbox: &DrainOnDrop<ToOwner<C>>,
    device: &Device,
) -> Result<(C, Weights), LoadError> {
    let mut arrivals = Arrivals {
        weights: Weights::default(),
        #[cfg(feature = "cuda")]
        upload: None,
    };
    loop {
        match arrivals.next(inbox).await? {
            Some(ToOwner::Tensor(arrived)) => {
                let tensor = arrived.values.into_tensor(&arrived.plan.shape, device)?;
                let uses = arrived.plan.uses;
                arrivals.weights.insert(arrived.name, tensor, uses);
                // An upload takes its time: the jobs of others go on between two.
                future::yield_now().await;
            }
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
            // Where the ticket knows more, its error came first and stays.
            Some(ToOwner::Failed) | None => return Err(LoadError::Interrupted),
        }
    }
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
        ensure_free(stage.bytes, device)?;
        let lender = match Upload::new(card, stage) {
            Ok((upload, lender)) => {
                self.upload = Some(upload);
                Some(lender)
            }
            Err(error) => {
                warn!(
                    "tensors go to the card one by one, since there is no pinned memory: {error}"
                );
                None
            }
        };
        let _ = stage.tell.try_send(lender);
        Ok(())
    }

    fn put(&mut self, chunk: Chunk) -> Result<(), LoadError> {
        let upload = self.upload.as_mut().ok_or(LoadError::Interrupted)?;
        Ok(upload.put(chunk, &mut self.weights)?)
    }
}
