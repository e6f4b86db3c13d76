//! The entries of a header, read strictly and within limits: a file from anywhere is not to fill the memory before
//! its model has claimed any.

use std::{collections::HashSet, fmt};

use safetensors::tensor::{Dtype, TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The most tensors in one file.
pub(super) const MAX_TENSORS: usize = 100_000;

/// The longest name of a tensor, in bytes.
pub(super) const MAX_NAME: usize = 1024;

/// The most dimensions of a tensor.
pub(super) const MAX_RANK: usize = 16;

/// Where a file says something about itself, which nobody here reads.
const METADATA: &str = "__metadata__";

/// The tensors of a header, each name once, in the order of their bytes.
#[derive(Debug)]
pub(super) struct Entries(pub(super) Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = deserializer.deserialize_map(EntriesVisitor)?;
        entries.sort_by_key(|(_, tensor)| tensor.data_offsets);
        Ok(Self(entries))
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(String, TensorInfo)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if name.len() > MAX_NAME {
                let bytes = name.len();
                let reason = format!("a name has {bytes} bytes, {MAX_NAME} are allowed");
                return Err(A::Error::custom(reason));
            }
            if entries.len() == MAX_TENSORS {
                let reason = format!("it lists more than {MAX_TENSORS} tensors");
                return Err(A::Error::custom(reason));
            }
            if !names.insert(name.clone()) {
                let reason = format!("the tensor `{name}` is listed twice");
                return Err(A::Error::custom(reason));
            }
            entries.push((name, map.next_value::<Entry>()?.into()));
        }
        Ok(entries)
    }
}

/// One tensor, as the file lists it.
#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    #[serde(deserialize_with = "short_shape")]
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl From<Entry> for TensorInfo {
    fn from(entry: Entry) -> Self {
        Self {
            dtype: entry.dtype,
            shape: entry.shape,
            data_offsets: entry.data_offsets,
        }
    }
}

fn short_shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    deserializer.deserialize_seq(ShapeVisitor)
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a shape of at most {MAX_RANK} dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut shape = Vec::new();
        while let Some(dimension) = sequence.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(A::Error::invalid_length(MAX_RANK + 1, &self));
            }
            shape.push(dimension);
        }
        Ok(shape)
    }
}
