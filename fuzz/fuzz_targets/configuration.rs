//! The configurations of a diffusion model's folder, any bytes, beside good weights: with sizes that nobody has, the
//! modules are put together over headers alone.

#![no_main]

use std::sync::LazyLock;

use bevy_candle::{DdpmPipeline, LoadError, MemoryFiles, ModelFiles, Pipeline};
use fuzz as _;
use libfuzzer_sys::fuzz_target;

/// The configurations, in the order of the parts of the input, which zero bytes tell apart.
const NAMES: [&str; 3] = [
    "model_index.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
];

/// The weights of a small model.
static WEIGHTS: LazyLock<MemoryFiles> = LazyLock::new(|| {
    let weights =
        include_bytes!("../../tests/fixtures/grey/unet/diffusion_pytorch_model.safetensors");
    MemoryFiles::new([("unet/diffusion_pytorch_model.safetensors", weights.to_vec())])
});

/// Configurations of its own, weights that are shared.
struct Folder(MemoryFiles);

impl Folder {
    fn holder(&self, name: &str) -> &MemoryFiles {
        if NAMES.contains(&name) {
            &self.0
        } else {
            &WEIGHTS
        }
    }
}

impl ModelFiles for Folder {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        let mut names = self.0.names()?;
        names.extend(WEIGHTS.names()?);
        Ok(names)
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.holder(name).len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        self.holder(name).read_at(name, offset, buf)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let parts = bytes.splitn(NAMES.len(), |byte| *byte == 0);
    let files = NAMES.into_iter().zip(parts.map(<[u8]>::to_vec));
    let _ = DdpmPipeline::plan(&Folder(MemoryFiles::new(files)));
});
