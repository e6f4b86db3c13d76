//! The memory of a CUDA device: the counters of its pool and of the card, and how to give idle blocks back.
//!
//! candle allocates from the device's stream-ordered pool, and a free returns to that pool. The driver's
//! `cuMemPoolGetAttribute` says exactly how much of it is in use; `cuMemPoolTrimTo` gives the rest back,
//! and must not go below that: other models use the same pool. Some devices have no pool, such as those of some virtual
//! machines: candle then allocates from the driver, and only the card's own figures are left.

use candle_core::{
    CudaDevice,
    cuda_backend::cudarc::driver::{
        CudaContext, DriverError,
        result::{device, init, mem_pool},
        sys::{CUmemPool_attribute, CUmemPool_attribute_enum, CUmemoryPool},
    },
};
use tracing::warn;

use super::release::Card;

/// What the driver says of the card and of the pool at this moment.
pub(super) fn card(device: &CudaDevice) -> Option<Card> {
    logged(ask(device.cuda_stream().context()))
}

fn ask(context: &CudaContext) -> Result<Card, DriverError> {
    let (free, total) = context.mem_get_info()?;
    let (used, reserved) = match pool(context)? {
        Some(pool) => (Some(used(pool)?), Some(reserved(pool)?)),
        None => (None, None),
    };
    Ok(Card {
        used,
        reserved,
        free: free as u64,
        total: total as u64,
    })
}

/// How many devices the driver knows.
pub(crate) fn cuda_devices() -> i32 {
    let count = init().and_then(|()| device::get_count());
    logged(count).unwrap_or_default()
}

/// Gives the pool's idle blocks back to the driver.
pub(super) fn trim(device: &CudaDevice) {
    let trimmed = pool(device.cuda_stream().context()).and_then(|pool| {
        let Some(pool) = pool else { return Ok(()) };
        let keep = used(pool)? as usize;
        #[expect(unsafe_code, reason = "cudarc has no safe wrapper for pools")]
        // SAFETY: the pool is the one that its device allocates from, which lives as long as the device.
        unsafe {
            mem_pool::trim_to(pool, keep)
        }
    });
    logged(trimmed);
}

/// The device's pool, where it has one.
fn pool(context: &CudaContext) -> Result<Option<CUmemoryPool>, DriverError> {
    context.bind_to_thread()?;
    if !context.has_async_alloc() {
        return Ok(None);
    }
    #[expect(unsafe_code, reason = "cudarc has no safe wrapper for pools")]
    // SAFETY: the context is alive and bound to this thread, so its device is valid.
    let pool = unsafe { device::get_mem_pool(context.cu_device()) }?;
    Ok(Some(pool))
}

fn used(pool: CUmemoryPool) -> Result<u64, DriverError> {
    attribute(
        pool,
        CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
    )
}

fn reserved(pool: CUmemoryPool) -> Result<u64, DriverError> {
    attribute(
        pool,
        CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
    )
}

fn attribute(pool: CUmemoryPool, attribute: CUmemPool_attribute) -> Result<u64, DriverError> {
    let mut value = 0_u64;
    #[expect(unsafe_code, reason = "cudarc has no safe wrapper for pools")]
    // SAFETY: the pool is valid, and this attribute is written as one `cuuint64_t`.
    unsafe {
        mem_pool::get_attribute(pool, attribute, (&raw mut value).cast())?;
    }
    Ok(value)
}

fn logged<T>(result: Result<T, DriverError>) -> Option<T> {
    result
        .inspect_err(|error| warn!("failed to ask the CUDA driver for its memory: {error}"))
        .ok()
}
