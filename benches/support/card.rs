//! Ways to get a model folder onto a CUDA device, in a process of its own: each returns its seconds. Devices are opened
//! before the clock starts.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    fs::File,
    panic::catch_unwind,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use bevy_candle::candle::{
    Device,
    cuda_backend::cudarc::driver::{CudaContext, PinnedHostSlice},
};

use super::{sides::each_tensor_of_candle, stack::WEIGHTS};

/// Bytes of one pinned buffer, as a load has them.
const BUFFER: usize = 2 << 20;

/// Bytes of one read, as a load has them.
const READ: usize = 1 << 20;

/// Whether there is a device.
pub fn is_there() -> bool {
    matches!(catch_unwind(CudaContext::device_count), Ok(Ok(1..)))
}

/// candle's own way: the file is mapped, and each tensor copied from the map to the device.
pub fn load_with_candle(folder: &Path) -> [f64; 1] {
    let device = Device::new_cuda(0).expect("the bench has looked");
    let begun = Instant::now();
    let tensors = each_tensor_of_candle(folder, &device);
    device.synchronize().expect("it works");
    let seconds = begun.elapsed().as_secs_f64();
    drop(tensors);
    [seconds]
}

/// The file by several threads, each into a pinned buffer of its own, and nothing else.
pub fn read_into_pinned(folder: &Path) -> [f64; 1] {
    let context = CudaContext::new(0).expect("the bench has looked");
    let file = folder.join(WEIGHTS);
    let length = file.metadata().expect("the bench has written it").len();
    let threads = thread::available_parallelism().map_or(3, |cores| cores.get().clamp(3, 4));
    let buffers: Vec<_> = (0..threads).map(|_| pinned(&context)).collect();
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for mut buffer in buffers {
            let (file, next) = (&file, &next);
            scope.spawn(move || {
                let file = File::open(file).expect("the bench has written it");
                let buffer = buffer.as_mut_slice().expect("nothing is copied from it");
                loop {
                    let offset = next.fetch_add(READ as u64, Ordering::Relaxed);
                    if offset >= length {
                        break;
                    }
                    let bytes = READ.min((length - offset) as usize);
                    read_exact_at(&file, &mut buffer[..bytes], offset);
                }
            });
        }
    });
    [begun.elapsed().as_secs_f64()]
}

/// As many bytes from two pinned buffers to the device, and nothing else.
pub fn copy_from_pinned(folder: &Path) -> [f64; 1] {
    let context = CudaContext::new(0).expect("the bench has looked");
    let length = folder.join(WEIGHTS).metadata();
    let length = length.expect("the bench has written it").len() as usize;
    let stream = context.new_stream().expect("a stream");
    let buffers = [pinned(&context), pinned(&context)];
    let mut into = stream.alloc_zeros::<u8>(length).expect("room");
    stream.synchronize().expect("it works");
    let begun = Instant::now();
    for (i, start) in (0..length).step_by(BUFFER).enumerate() {
        let end = length.min(start + BUFFER);
        let mut part = into.slice_mut(start..end);
        let from = &buffers[i % buffers.len()];
        if end - start == BUFFER {
            stream.memcpy_htod(from, &mut part).expect("a copy");
        }
    }
    stream.synchronize().expect("it works");
    [begun.elapsed().as_secs_f64()]
}

fn pinned(context: &Arc<CudaContext>) -> PinnedHostSlice<u8> {
    #[expect(unsafe_code, reason = "cudarc leaves pinned memory as it is")]
    // SAFETY: nothing is read of it before it is filled, below.
    let memory = unsafe { context.alloc_pinned_with_flags::<u8>(BUFFER, 0) };
    let mut memory = memory.expect("pinned memory");
    memory.as_mut_slice().expect("nothing is copied").fill(1);
    memory
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], offset: u64) {
    use std::os::unix::fs::FileExt;

    file.read_exact_at(into, offset).expect("the disk works");
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, into: &mut [u8], offset: u64) {
    use std::io::{Read, Seek, SeekFrom};

    // Each thread has a file of its own.
    file.seek(SeekFrom::Start(offset)).expect("the disk works");
    file.read_exact(into).expect("the disk works");
}
