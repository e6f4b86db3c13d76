//! The model: 1 GiB of weights, and a pipeline that only holds them.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bevy::prelude::*;
use bevy_candle::{
    candle::{self, Tensor},
    candle_nn::VarBuilder,
    prelude::*,
};
use tempfile::TempDir;

const FILE: &str = "block.safetensors";
const TENSORS: usize = 256;
/// 4 MiB.
const SHAPE: (usize, usize) = (1024, 1024);
const TENSOR_BYTES: usize = SHAPE.0 * SHAPE.1 * size_of::<f32>();
pub const BYTES: u64 = (TENSORS * TENSOR_BYTES) as u64;

/// A model that is all weights.
pub struct Block {
    weights: Vec<Tensor>,
}

impl Pipeline for Block {
    type Config = ();
    type Settings = ();
    type Request = ();
    type Partial = ();
    /// The first weight.
    type Output = f32;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        Plan::new(())
            .weights(files, FILE)?
            .check(|(), vb| Self::new(&vb))
    }

    async fn build(_: (), vb: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Ok(Self::new(&vb)?)
    }

    async fn infer(&self, _: (), _: Steps<Self>) -> Result<f32, InferError> {
        Ok(self.weights[0].flatten_all()?.get(0)?.to_scalar()?)
    }
}

impl Block {
    fn new(vb: &VarBuilder<'static>) -> candle::Result<Self> {
        let weights = (0..TENSORS).map(|at| vb.get(SHAPE, &name(at)));
        Ok(Self {
            weights: weights.collect::<Result<_, _>>()?,
        })
    }
}

fn name(at: usize) -> String {
    format!("block.{at}")
}

/// The file, which a thread writes while the scene runs. It goes with this resource.
#[derive(Resource)]
pub struct Weights {
    folder: TempDir,
    written: Arc<AtomicU64>,
    /// Why the writer has stopped.
    failure: Arc<OnceLock<io::Error>>,
}

impl Weights {
    pub fn begin() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("frame_stage-").tempdir()?;
        let (path, written) = (folder.path().join(FILE), Arc::new(AtomicU64::new(0)));
        let failure = Arc::new(OnceLock::new());
        let (counter, reason) = (written.clone(), failure.clone());
        thread::Builder::new()
            .name("frame-stage-writer".into())
            .spawn(move || {
                if let Err(error) = write(&path, &counter) {
                    // Nobody else sets it.
                    let _ = reason.set(error);
                }
            })?;
        Ok(Self {
            folder,
            written,
            failure,
        })
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().into()
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    pub fn are_written(&self) -> bool {
        self.written.load(Ordering::Acquire) == BYTES
    }

    /// Returns the bytes that are there, or why there will be no more.
    pub fn written(&self) -> Result<u64, &io::Error> {
        let written = self.written.load(Ordering::Acquire);
        self.failure.get().map_or(Ok(written), Err)
    }
}

fn write(path: &Path, written: &AtomicU64) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let tensor = |at: usize| {
        let (start, end) = (at * TENSOR_BYTES, (at + 1) * TENSOR_BYTES);
        let (rows, columns) = SHAPE;
        format!(
            r#""{}":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[{start},{end}]}}"#,
            name(at)
        )
    };
    let tensors: Vec<_> = (0..TENSORS).map(tensor).collect();
    let header = format!("{{{}}}", tensors.join(","));
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let values: Vec<u8> = (0..TENSOR_BYTES / 4)
        .flat_map(|at| (at as f32).sin().to_le_bytes())
        .collect();
    for at in 0..TENSORS {
        file.write_all(&values)?;
        if at + 1 == TENSORS {
            file.flush()?;
        }
        written.fetch_add(TENSOR_BYTES as u64, Ordering::Release);
    }
    Ok(())
}
