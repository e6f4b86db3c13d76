//! [`HeldFiles`]: files that a game has handed over.

use std::sync::Arc;

use super::ModelFiles;
use crate::loader::drop_apart;

/// Dropped where nobody waits: they may be a gibibyte in memory, and it is mostly the main thread that lets go of them last.
#[derive(Clone)]
pub(super) struct HeldFiles(Option<Arc<dyn ModelFiles>>);

impl HeldFiles {
    pub(super) fn new(files: Arc<dyn ModelFiles>) -> Self {
        Self(Some(files))
    }

    pub(super) fn get(&self) -> &Arc<dyn ModelFiles> {
        self.0.as_ref().expect("taken by the drop only")
    }
}

impl Drop for HeldFiles {
    fn drop(&mut self) {
        if let Some(files) = self.0.take()
            && Arc::strong_count(&files) == 1
        {
            drop_apart(files);
        }
    }
}
