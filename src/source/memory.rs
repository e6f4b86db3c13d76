//! Files in memory.

use std::collections::BTreeMap;

use super::ModelFiles;
use crate::LoadError;

/// A model whose files are in memory: compiled into the game, or made on the spot.
///
/// ```
/// use std::sync::Arc;
///
/// use bevy_candle::{MemoryFiles, ModelSource};
///
/// let files = MemoryFiles::new([("config.json", b"{}".to_vec())]);
/// let source = ModelSource::files("built in", Arc::new(files));
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(BTreeMap<String, Vec<u8>>);

impl MemoryFiles {
    /// Takes the files by their names.
    pub fn new<N: Into<String>>(files: impl IntoIterator<Item = (N, Vec<u8>)>) -> Self {
        Self(
            files
                .into_iter()
                .map(|(name, bytes)| (name.into(), bytes))
                .collect(),
        )
    }

    fn find(&self, name: &str) -> Result<&[u8], LoadError> {
        let missing = || LoadError::FileMissing {
            file: name.into(),
            folder: "memory".into(),
        };
        self.0.get(name).map(Vec::as_slice).ok_or_else(missing)
    }
}

impl ModelFiles for MemoryFiles {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        Ok(self.0.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        Ok(self.find(name)?.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        let bytes = self.find(name)?;
        let expected = offset.saturating_add(buf.len() as u64);
        let found = bytes.len() as u64;
        if expected > found {
            return Err(LoadError::CutShort {
                file: name.into(),
                expected,
                found,
            });
        }
        buf.copy_from_slice(&bytes[offset as usize..expected as usize]);
        Ok(())
    }
}
