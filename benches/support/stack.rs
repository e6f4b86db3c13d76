//! [`Stack`]: a pipeline that takes all tensors of a file, module by module.

#![allow(dead_code, reason = "each bench uses a part")]

use bevy_candle::{
    candle::{DType, Shape, Tensor},
    candle_nn::VarBuilder,
    prelude::*,
    read_json,
};
use serde::{Deserialize, Serialize};

/// The file that says which tensors there are.
pub const CONFIG: &str = "config.json";

/// The file with the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// A name and a shape.
pub type Entry = (String, Vec<usize>);

/// The modules of a model, each with its tensors.
#[derive(Clone, Serialize, Deserialize)]
pub struct Layout {
    modules: Vec<Vec<Entry>>,
}

impl Layout {
    /// Layers of a transformer of width 768, of so many bytes together, or a few more.
    pub fn transformer(bytes: u64, stored: DType) -> Self {
        let mut layout = Self {
            modules: Vec::new(),
        };
        while layout.bytes(stored) < bytes {
            let layer = layer(layout.modules.len(), 768);
            layout.modules.push(layer);
        }
        layout
    }

    /// Eight f32 tensors of so many bytes together.
    pub fn large(bytes: u64) -> Self {
        let columns = 4096;
        let rows = (bytes / 8 / columns / 4) as usize;
        let table = |i| vec![(format!("tables.{i}"), vec![rows, columns as usize])];
        Self {
            modules: (0..8).map(table).collect(),
        }
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &Entry> {
        self.modules.iter().flatten()
    }

    /// The bytes of all tensors in a format.
    pub fn bytes(&self, dtype: DType) -> u64 {
        let elements = |(_, shape): &Entry| Shape::from(shape.as_slice()).elem_count();
        (self.tensors().map(elements).sum::<usize>() * dtype.size_in_bytes()) as u64
    }
}

fn layer(number: usize, width: usize) -> Vec<Entry> {
    let mut tensors = Vec::new();
    let mut linear = |name: &str, input: usize, output: usize| {
        let name = format!("layers.{number}.{name}");
        tensors.push((format!("{name}.weight"), vec![output, input]));
        tensors.push((format!("{name}.bias"), vec![output]));
    };
    for projection in ["query", "key", "value", "out"] {
        linear(projection, width, width);
    }
    linear("up", width, 4 * width);
    linear("down", 4 * width, width);
    for norm in ["norm_1", "norm_2"] {
        let name = format!("layers.{number}.{norm}");
        tensors.push((format!("{name}.weight"), vec![width]));
        tensors.push((format!("{name}.bias"), vec![width]));
    }
    tensors
}

/// A model that holds its weights, and warms up for so many steps of about a millisecond.
pub struct Stack<const WARM_UP: u32 = 0> {
    weights: Vec<Tensor>,
}

impl<const WARM_UP: u32> Stack<WARM_UP> {
    fn module(module: &[Entry], vb: &VarBuilder<'_>) -> Result<Vec<Tensor>, LoadError> {
        let tensors = module
            .iter()
            .map(|(name, shape)| vb.get(shape.as_slice(), name));
        Ok(tensors.collect::<Result<_, _>>()?)
    }
}

impl<const WARM_UP: u32> Pipeline for Stack<WARM_UP> {
    type Config = Layout;
    type Settings = ();
    type Request = ();
    type Partial = ();
    type Output = usize;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<Layout>, LoadError> {
        let layout: Layout = read_json(files, CONFIG)?;
        Plan::new(layout)
            .weights(files, WEIGHTS)?
            .check(|layout, vb| {
                let modules = layout.modules.iter();
                let built = modules.map(|module| Self::module(module, &vb));
                built.collect::<Result<Vec<_>, _>>()
            })
    }

    async fn build(
        layout: Layout,
        vb: VarBuilder<'static>,
        load: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let mut weights = Vec::new();
        for module in &layout.modules {
            weights.extend(Self::module(module, &vb)?);
            load.next().await;
        }
        Ok(Self { weights })
    }

    async fn warm_up(&self, load: &LoadSteps) -> Result<(), LoadError> {
        for _ in 0..WARM_UP {
            let row = self.weights[0].flatten_all()?;
            let part = row.narrow(0, 0, row.elem_count().min(256 << 10))?;
            part.sqr()?.sum_all()?;
            load.next().await;
        }
        Ok(())
    }

    async fn infer(&self, (): (), _: Steps<Self>) -> Result<usize, InferError> {
        Ok(self.weights.len())
    }
}
