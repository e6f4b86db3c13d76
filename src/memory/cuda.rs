//! The memory pool of a CUDA device: its counters, and how to give its idle blocks back.
//!
//! candle allocates from the device's stream-ordered pool, and a free returns to that pool. The driver's
//! `cuMemPoolGetAttribute` says exactly how much of it is in use; `cuMemPoolTrimTo` gives the rest back,
//! and must not go below that: other models use the same pool.

use candle_core::{
    CudaDevice,
    cuda_backend::cudarc::driver::{
        DriverError,
        result::{device, init, mem_get_info, mem_pool},
        sys::{CUmemPool_attribute, CUmemPool_attribute_enum, CUmemoryPool},
    },
};
use tracing::warn;

/// Bytes of the device's pool that tensors use.
pub(super) fn pool_in_use(device: &CudaDevice) -> Option<u64> {
    logged(pool(device).and_then(used))
}

/// How many devices the driver knows.
pub(crate) fn cuda_devices() -> i32 {
    let count = init().and_then(|()| device::get_count());
    logged(count).unwrap_or_default()
}

/// Bytes of the card that nobody uses.
pub(super) fn free(device: &CudaDevice) -> Option<u64> {
    let stream = device.cuda_stream();
    let bound = stream.context().bind_to_thread();
    logged(bound.and_then(|()| mem_get_info())).map(|(free, _)| free as u64)
}

/// Gives the pool's idle blocks back to the driver.
pub(super) fn trim(device: &CudaDevice) {
    logged(pool(device).and_then(|pool| {
        let keep = used(pool)? as usize;
        #[expect(unsafe_code, reason = "cudarc has no safe wrapper for pools")]
        // SAFETY: the pool is its device's default pool, which lives as long as the driver.
        unsafe {
            mem_pool::trim_to(pool, keep)
        }
    }));
}

fn pool(device: &CudaDevice) -> Result<CUmemoryPool, DriverError> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread()?;
    #[expect(unsafe_code, reason = "cudarc has no safe wrapper for pools")]
    // SAFETY: the context is alive and bound to this thread, so its device is valid.
    unsafe {
        device::get_default_mem_pool(context.cu_device())
    }
}

fn used(pool: CUmemoryPool) -> Result<u64, DriverError> {
    attribute(
        pool,
        CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
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
