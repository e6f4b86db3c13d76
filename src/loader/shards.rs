//! Weights in several files: which of them holds which tensor.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{LoadError, ModelFiles, source::checked_name, source::read_small};

/// What an index is called, after the name of the weights that it stands for.
const INDEX: &str = ".index.json";

/// What files that `torch.save` wrote end in. They are programs: to read one is to run it.
const PICKLE: &str = ".bin";

/// The most files that one index may name: each is kept open while a model is read.
const MAX_SHARDS: usize = 1000;

/// Where weights are, for a name such as `unet/diffusion_pytorch_model.safetensors`.
pub(super) enum Weights {
    /// In the file of that name.
    Whole,
    /// In several, next to their index.
    Shards(Shards),
}

/// The files of an index, and what is in each.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Shards {
    /// The full name of the file that holds each tensor.
    pub(super) file_of: BTreeMap<String, String>,
}

impl Shards {
    /// Returns the files, each once.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        self.file_of.values().map(String::as_str).collect()
    }
}

/// The format of `diffusion_pytorch_model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Looks for a file or its index.
pub(super) fn find_weights(files: &dyn ModelFiles, file: &str) -> Result<Weights, LoadError> {
    match files.len(file) {
        Ok(_) => return Ok(Weights::Whole),
        Err(LoadError::FileMissing { .. }) => {}
        Err(error) => return Err(error),
    }
    let index = format!("{file}{INDEX}");
    match read_small(files, &index) {
        Ok(text) => read_index(&text, &index).map(Weights::Shards),
        Err(missing @ LoadError::FileMissing { .. }) => {
            Err(pickle(files, file).unwrap_or_else(|| match missing {
                LoadError::FileMissing { folder, .. } => LoadError::FileMissing {
                    file: file.into(),
                    folder,
                },
                other => other,
            }))
        }
        Err(error) => Err(error),
    }
}

/// Reads an index. The names in it are untrusted: each has to be that of a file in the
/// folder of the index or below.
pub(super) fn read_index(text: &[u8], index: &str) -> Result<Shards, LoadError> {
    let Index { weight_map } =
        serde_json::from_slice(text).map_err(|error| LoadError::json(index, error))?;
    let folder = index.rfind('/').map_or("", |slash| &index[..=slash]);
    let mut shards = Shards::default();
    for (tensor, shard) in weight_map {
        checked_name(&shard)?;
        shards.file_of.insert(tensor, format!("{folder}{shard}"));
    }
    let count = shards.files().len();
    if count > MAX_SHARDS {
        let reason = format!("it names {count} files, {MAX_SHARDS} are allowed");
        return Err(LoadError::json(index, reason));
    }
    Ok(shards)
}

/// Says that there is only a pickle, where there is one.
fn pickle(files: &dyn ModelFiles, file: &str) -> Option<LoadError> {
    let folder = file.rfind('/').map_or("", |slash| &file[..slash]);
    let is_beside = |name: &&String| {
        let (in_folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        in_folder == folder && last.ends_with(PICKLE)
    };
    let names = files.names().ok()?;
    let found = names.iter().find(is_beside)?;
    Some(LoadError::Pickle {
        file: found.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFiles;

    const FILE: &str = "unet/model.safetensors";

    fn find(files: &[(&str, &str)]) -> Result<Weights, LoadError> {
        let files = files
            .iter()
            .map(|(name, text)| (*name, text.as_bytes().to_vec()));
        find_weights(&MemoryFiles::new(files), FILE)
    }

    #[test]
    fn shards_are_next_to_their_index() {
        let index =
            r#"{"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
        let found = find(&[("unet/model.safetensors.index.json", index)]);
        let Ok(Weights::Shards(shards)) = found else {
            panic!("there is an index")
        };
        assert_eq!(shards.file_of["a"], "unet/m-1.safetensors");
        let files = shards.files();
        assert!(
            files
                .into_iter()
                .eq(["unet/m-1.safetensors", "unet/m-2.safetensors"])
        );
    }

    #[test]
    fn a_whole_file_comes_before_an_index() {
        let both = [(FILE, ""), ("unet/model.safetensors.index.json", "{}")];
        assert!(matches!(find(&both), Ok(Weights::Whole)));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["../m.safetensors", "/etc/passwd", "a/../../b", "", "c:\\m"] {
            let index = serde_json::json!({ "weight_map": { "a": name } }).to_string();
            let error = read_index(index.as_bytes(), "m.index.json").expect_err(name);
            assert!(matches!(error, LoadError::UnsafeName { .. }), "{error}");
        }
    }

    #[test]
    fn an_index_that_names_too_many_files_is_refused() {
        let map: BTreeMap<_, _> = (0..=MAX_SHARDS)
            .map(|i| (format!("t{i}"), format!("m-{i}.safetensors")))
            .collect();
        let index = serde_json::json!({ "weight_map": map }).to_string();
        let error = read_index(index.as_bytes(), "m.index.json").expect_err("too many");
        assert!(error.to_string().contains("m.index.json"), "{error}");
    }

    #[test]
    fn a_lone_pickle_is_named_and_not_read() {
        let error = find(&[("unet/model.bin", "")]).err().expect("an error");
        let message = error.to_string();
        assert!(message.contains("unet/model.bin"), "{message}");
        assert!(message.contains("safetensors"), "{message}");
        let elsewhere = find(&[("vae/model.bin", "")]).err().expect("an error");
        assert!(
            matches!(&elsewhere, LoadError::FileMissing { file, .. } if file == FILE),
            "{elsewhere}"
        );
    }
}
