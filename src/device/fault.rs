//! What an error of a CUDA driver means for those who use the device.

#[cfg(feature = "cuda")]
use std::{error::Error, sync::Arc};

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{
    CudaError,
    cudarc::{cublas::result::CublasError, driver::DriverError},
};

/// What becomes of a device after an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It had no memory left. The next smaller request works.
    OutOfMemory,
    /// It is lost to this process: every later call returns the same error.
    Sticky,
    /// It goes on.
    Passing,
}

impl Fault {
    /// What the driver's number means. The sticky ones are those that its manual says leave the process in an
    /// inconsistent state, or take the context along.
    pub(super) const fn of_driver(code: u32) -> Self {
        match code {
            // CUDA_ERROR_OUT_OF_MEMORY
            2 => Self::OutOfMemory,
            // DEINITIALIZED, ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, CONTAINED; ILLEGAL_ADDRESS, LAUNCH_TIMEOUT,
            // CONTEXT_IS_DESTROYED, ASSERT; from HARDWARE_STACK_ERROR to LAUNCH_FAILED; TENSOR_MEMORY_LEAK,
            // EXTERNAL_DEVICE
            4 | 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 911 => Self::Sticky,
            _ => Self::Passing,
        }
    }

    /// Whether a device is lost that could not be waited for, the last time for this.
    pub(super) const fn is_loss(self) -> bool {
        !matches!(self, Self::OutOfMemory)
    }

    /// What a number of cuBLAS means, which hides the driver's.
    pub(super) const fn of_cublas(code: u32) -> Self {
        match code {
            // CUBLAS_STATUS_ALLOC_FAILED
            3 => Self::OutOfMemory,
            _ => Self::Passing,
        }
    }

    /// Looks for a driver's error behind an error and its causes.
    #[cfg(feature = "cuda")]
    pub(super) fn behind(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(fault) = Self::of_error(error) {
                return fault;
            }
            next = error.source();
        }
        Self::Passing
    }

    #[cfg(feature = "cuda")]
    fn of_error(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<DriverError>() {
            return Some(Self::of_driver(error.0 as u32));
        }
        if let Some(error) = error.downcast_ref::<CublasError>() {
            return Some(Self::of_cublas(error.0 as u32));
        }
        // `InferError` keeps its cause in one, which then is the cause.
        if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            return Self::of_error(&**shared);
        }
        match error.downcast_ref::<CudaError>() {
            Some(CudaError::Cuda(cuda) | CudaError::Load { cuda, .. }) => {
                return Self::of_error(cuda);
            }
            Some(CudaError::Cublas(cublas)) => return Self::of_error(cublas),
            _ => {}
        }
        Self::of_candle(error.downcast_ref::<candle_core::Error>()?)
    }

    /// candle's error does not name as its source what it wraps.
    #[cfg(feature = "cuda")]
    fn of_candle(error: &candle_core::Error) -> Option<Self> {
        use candle_core::Error::{Context, Cuda, WithBacktrace, WithPath, WrappedContext};
        match error {
            Cuda(inner) => Self::of_error(&**inner),
            WrappedContext { wrapped, .. } => Some(Self::behind(&**wrapped)),
            Context { inner, .. } | WithPath { inner, .. } | WithBacktrace { inner, .. } => {
                Self::of_candle(inner)
            }
            _ => None,
        }
    }
}

/// Whether a driver's number only says that there is no memory of the kind that was asked for.
pub(crate) const fn refuses_memory(code: u32) -> bool {
    // CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NOT_SUPPORTED
    matches!(code, 2 | 801)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_card_is_no_broken_one() {
        assert_eq!(Fault::of_driver(2), Fault::OutOfMemory);
        assert_eq!(Fault::of_cublas(3), Fault::OutOfMemory);
    }

    #[test]
    fn what_cannot_be_waited_for_is_lost_unless_it_is_full() {
        assert!(Fault::Sticky.is_loss() && Fault::Passing.is_loss());
        assert!(!Fault::OutOfMemory.is_loss());
    }

    #[test]
    fn only_a_lack_of_memory_is_none() {
        let refusals: Vec<u32> = (0..1000).filter(|code| refuses_memory(*code)).collect();
        assert_eq!(refusals, [2, 801]);
    }

    #[test]
    fn what_takes_the_context_along_is_sticky() {
        let sticky: Vec<u32> = (0..1000)
            .filter(|code| Fault::of_driver(*code) == Fault::Sticky)
            .collect();
        assert_eq!(
            sticky,
            [
                4, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 911
            ]
        );
    }

    #[test]
    fn a_bad_argument_a_busy_device_and_a_missing_kernel_pass() {
        for code in [0, 1, 46, 100, 209, 400, 500, 600, 701, 801, 999] {
            assert_eq!(Fault::of_driver(code), Fault::Passing, "{code}");
        }
        for code in [0, 1, 7, 13, 14, 15] {
            assert_eq!(Fault::of_cublas(code), Fault::Passing, "{code}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_driver_error_is_found_behind_candle_and_our_own() {
        use candle_core::cuda_backend::cudarc::driver::sys::CUresult;

        use crate::{InferError, LoadError};

        let driver = |code| candle_core::Error::from(CudaError::Cuda(DriverError(code)));
        let full = LoadError::from(driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY).context("a layer"));
        assert_eq!(Fault::behind(&full), Fault::OutOfMemory);
        let broken = LoadError::build(driver(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert_eq!(Fault::behind(&broken), Fault::Sticky);
        let job = InferError::failed(driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(Fault::behind(&job), Fault::OutOfMemory);
        let other = LoadError::build("a pipeline's own reason");
        assert_eq!(Fault::behind(&other), Fault::Passing);
    }
}
