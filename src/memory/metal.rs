//! The memory of a Metal device. candle sweeps its buffer pools when the device is synchronized.

use candle_core::MetalDevice;

/// Bytes that the device has allocated for this process.
pub(super) fn allocated(device: &MetalDevice) -> u64 {
    device.metal_device().current_allocated_size() as u64
}
