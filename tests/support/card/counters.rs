//! What the driver says of the device's pool.

use bevy_candle::candle::cuda_backend::cudarc::driver::{
    CudaContext,
    result::{device, mem_pool},
    sys::CUmemPool_attribute,
};

/// What tensors use of the pool, as the driver counts.
pub fn pool_used() -> u64 {
    ask_pool(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
}

/// What the pool has from the driver.
pub fn pool_reserved() -> u64 {
    ask_pool(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
}

fn ask_pool(attribute: CUmemPool_attribute) -> u64 {
    let context = CudaContext::new(0).expect("a device");
    // A free is done when its turn comes.
    context.synchronize().expect("it works");
    let mut bytes = 0_u64;
    #[expect(unsafe_code, reason = "cudarc has no safe wrapper for pools")]
    // SAFETY: the device is open, and the attribute is written as one `cuuint64_t`.
    let asked = unsafe {
        device::get_mem_pool(context.cu_device())
            .and_then(|pool| mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()))
    };
    asked.expect("the pool's counters");
    bytes
}
