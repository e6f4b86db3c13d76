//! Model folders of 1 GiB, made on the spot and removed with their handle.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use bevy_candle::candle::{DType, Shape};
use tempfile::TempDir;

use super::stack::{CONFIG, Layout, WEIGHTS};

/// Bytes of weights in each file.
pub const GIB: u64 = 1 << 30;

/// What a file is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// The layers of a transformer, f32: from 3 KiB to 9 MiB.
    Many,
    /// Eight tensors of 128 MiB, f32.
    Large,
    /// The same layers as bf16, which run as f32.
    Bf16,
}

impl Set {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Many, Self::Large, Self::Bf16];

    fn stored(self) -> DType {
        match self {
            Self::Many | Self::Large => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    fn layout(self) -> Layout {
        match self {
            Self::Large => Layout::large(GIB),
            Self::Many | Self::Bf16 => Layout::transformer(GIB, self.stored()),
        }
    }
}

/// A folder with one model, which goes with this.
pub struct Folder {
    folder: TempDir,
    /// Bytes of the weights, as f32.
    pub bytes: u64,
}

impl Folder {
    /// Writes a model, and waits until it is on the disk.
    pub fn make(set: Set) -> io::Result<Self> {
        let folder = TempDir::new()?;
        let layout = set.layout();
        let config = serde_json::to_vec(&layout)?;
        fs::write(folder.path().join(CONFIG), config)?;
        write_weights(&folder.path().join(WEIGHTS), &layout, set.stored())?;
        Ok(Self {
            folder,
            bytes: layout.bytes(DType::F32),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file with the weights.
    pub fn weights(&self) -> PathBuf {
        self.path().join(WEIGHTS)
    }
}

fn write_weights(path: &Path, layout: &Layout, stored: DType) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(4 << 20, File::create(path)?);
    let header = header(layout, stored);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let block = numbers();
    let mut left = layout.bytes(stored) as usize;
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block[..part])?;
        left -= part;
    }
    file.into_inner()?.sync_all()
}

fn header(layout: &Layout, stored: DType) -> String {
    let name = if stored == DType::F32 { "F32" } else { "BF16" };
    let mut end = 0;
    let tensors = layout.tensors().map(|(tensor, shape)| {
        let start = end;
        end += Shape::from(shape.as_slice()).elem_count() * stored.size_in_bytes();
        format!(
            r#""{tensor}":{{"dtype":"{name}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        )
    });
    let mut header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    // Weights begin at a multiple of 8, as the format's own writer has it.
    let padding = header.len().next_multiple_of(8) - header.len();
    header.push_str(&" ".repeat(padding));
    header
}

/// Bytes that are neither zeros nor all the same; as f32 and as bf16 they are finite numbers.
fn numbers() -> Vec<u8> {
    let number =
        |i: u32| ((i.wrapping_mul(2_654_435_761) >> 16) as f32 / 65_536.0 - 0.5).to_le_bytes();
    (0..1 << 20).flat_map(number).collect()
}
