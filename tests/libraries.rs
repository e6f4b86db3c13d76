//! Which libraries a program with this crate needs to start: without the feature `cuda`, none of CUDA.

#![cfg(target_os = "linux")]

use bevy_candle::candle::Device;
use goblin::elf::Elf;

/// What the names of CUDA's libraries begin with, the driver's own included.
const CUDA: [&str; 4] = ["libcu", "libnvrtc", "libnvidia", "libnccl"];

#[test]
fn only_the_feature_needs_libraries_of_cuda() {
    // So that it is linked, and with it what it needs.
    assert!(Device::cuda_if_available(0).is_ok() || cfg!(feature = "cuda"));
    let program = std::env::current_exe().and_then(std::fs::read);
    let program = program.expect("this program");
    let elf = Elf::parse(&program).expect("a program of Linux");
    assert!(elf.libraries.iter().any(|name| name.starts_with("libc.")));
    let is_cuda = |name: &&&str| CUDA.iter().any(|cuda| name.starts_with(cuda));
    let found: Vec<_> = elf.libraries.iter().filter(is_cuda).collect();
    assert_eq!(!found.is_empty(), cfg!(feature = "cuda"), "{found:?}");
}
