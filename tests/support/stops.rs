//! A model's files with a gate before and after each read.

#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use bevy_candle::{
    prelude::*,
    test_kit::{FakeModel, Gate},
};

/// Stops a reader before it reads, and again when it has.
struct Stops {
    files: Arc<dyn ModelFiles>,
    gate: Gate,
}

/// Returns a model's source with a gate before and after each read, headers and configuration included.
pub fn stopping(model: &FakeModel, gate: &Gate) -> ModelSource {
    let (files, gate) = (model.files(), gate.clone());
    let id = model.source().id().to_string();
    ModelSource::files(id, Arc::new(Stops { files, gate }))
}

impl ModelFiles for Stops {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.files.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.files.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        self.gate.pass_blocking();
        self.files.read_at(name, offset, buf)?;
        self.gate.pass_blocking();
        Ok(())
    }
}
