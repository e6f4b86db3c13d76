//! [`VariantFiles`]: the files of a variant, where they exist.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    sync::{Arc, Mutex, PoisonError},
};

use super::{HeldFiles, ModelFiles};
use crate::LoadError;

/// Reads `model.fp16.safetensors` where `model.safetensors` is asked for, and `model.safetensors.index.fp16.json` where
/// `model.safetensors.index.json` is, where they exist.
pub(super) struct VariantFiles {
    files: HeldFiles,
    variant: Arc<str>,
    /// What each name was found to mean: a file that comes during a load is not read by the header of another.
    names: Mutex<HashMap<String, Arc<str>>>,
}

impl VariantFiles {
    pub(super) fn new(files: HeldFiles, variant: Arc<str>) -> Self {
        Self {
            files,
            variant,
            names: Mutex::default(),
        }
    }

    fn real_name(&self, name: &str) -> Arc<str> {
        let names = || self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names().get(name).cloned();
        known.unwrap_or_else(|| {
            let found = self.find(name).into();
            names().entry(name.to_owned()).or_insert(found).clone()
        })
    }

    /// The name with the variant, unless there is no such file. One that cannot be read is not passed
    /// over: it fails with its own name.
    fn find(&self, name: &str) -> String {
        let variant = &self.variant;
        let missing =
            |name: &str| matches!(self.files.len(name), Err(LoadError::FileMissing { .. }));
        if let Some(stem) = name.strip_suffix(".safetensors") {
            let whole = format!("{stem}.{variant}.safetensors");
            // Where the variant is in several files, the plain one does not stand for it.
            let index = format!("{name}.index.{variant}.json");
            if missing(&whole) && missing(&index) {
                return name.to_owned();
            }
            return whole;
        }
        let Some(stem) = name.strip_suffix(".index.json") else {
            return name.to_owned();
        };
        let index = format!("{stem}.index.{variant}.json");
        if missing(&index) {
            name.to_owned()
        } else {
            index
        }
    }
}

impl ModelFiles for VariantFiles {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.files.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.files.len(&self.real_name(name))
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        self.files.read_at(&self.real_name(name), offset, buf)
    }

    fn read_new<'buf>(
        &self,
        name: &str,
        offset: u64,
        buf: &'buf mut [MaybeUninit<u8>],
    ) -> Option<&'buf mut [u8]> {
        self.files.read_new(&self.real_name(name), offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::FolderFiles;

    #[test]
    fn a_variant_that_comes_during_a_load_is_not_mixed_with_the_plain_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text| fs::write(folder.path().join(name), text).expect("a file");
        let open = || {
            let files = FolderFiles::new(folder.path().to_owned());
            VariantFiles::new(HeldFiles::new(Arc::new(files)), "fp16".into())
        };
        let read = |files: &VariantFiles| {
            let mut bytes = [0; 5];
            files
                .read_at("m.safetensors", 0, &mut bytes)
                .expect("it is there");
            bytes
        };
        write("m.safetensors", "plain");
        let files = open();
        assert_eq!(files.len("m.safetensors").expect("it is there"), 5);
        write("m.fp16.safetensors", "small");
        assert_eq!(&read(&files), b"plain");
        assert_eq!(&read(&open()), b"small", "in the next load");
    }
}
