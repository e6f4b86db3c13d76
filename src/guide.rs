//! The pages of the folder `docs` that are about this crate. Their commands are for the repository: tests, benches and tools
//! are not in the published package.

#[doc = "[gpu.md]: crate::guide::gpu"]
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

#[doc = "[reliability.md]: crate::guide::reliability"]
#[doc = include_str!("../docs/benchmarks.md")]
pub mod benchmarks {}

#[doc = include_str!("../docs/ddpm.md")]
pub mod ddpm {}

#[doc = include_str!("../docs/gpu.md")]
pub mod gpu {}

#[doc = "[gpu.md]: crate::guide::gpu"]
#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}
