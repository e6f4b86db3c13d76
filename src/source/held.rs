//! [`HeldFiles`]: a model's files, in the hands of this crate.

use std::{ops::Deref, sync::Arc};

use super::ModelFiles;
use crate::loader::drop_apart;

/// Clones are the same files.
#[derive(Clone)]
pub(crate) struct HeldFiles(Arc<Held>);

/// Drops the files where nobody waits: they may be a gibibyte in memory, and it is mostly the main thread that lets go of
/// them last.
struct Held(Option<Arc<dyn ModelFiles>>);

impl HeldFiles {
    pub(super) fn new(files: Arc<dyn ModelFiles>) -> Self {
        Self(Arc::new(Held(Some(files))))
    }
}

impl Deref for HeldFiles {
    type Target = dyn ModelFiles;

    fn deref(&self) -> &Self::Target {
        self.0.0.as_deref().expect("taken by the drop only")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(files) = self.0.take() {
            drop_apart(files);
        }
    }
}
