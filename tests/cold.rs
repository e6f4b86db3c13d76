//! A large model that the system does not have in its cache: on Linux it is read around it, in pieces that know
//! nothing of tensors. Each value must arrive, in each number format.

use std::{collections::BTreeMap, fs::File, path::Path};

use bevy::prelude::*;
use bevy_candle::{
    candle::{self, DType, Device, Tensor},
    candle_nn::VarBuilder,
    prelude::*,
    read_json,
    test_kit::run_until,
};

const MIB: usize = 1 << 20;

/// How many elements each tensor has, by its name: small ones lie between large ones, so that hardly one begins where a
/// page does.
type Sizes = BTreeMap<String, usize>;

/// Adds up its weights.
struct Sums(BTreeMap<String, u64>);

impl Pipeline for Sums {
    type Config = Sizes;
    type Settings = ();
    type Request = ();
    type Partial = ();
    type Output = BTreeMap<String, u64>;

    fn plan(files: &dyn ModelFiles) -> Result<Plan<Sizes>, LoadError> {
        Plan::new(read_json::<Sizes>(files, "sizes.json")?)
            .weights(files, "model.safetensors")?
            .check(|sizes, weights| get(sizes, &weights).map(drop))
    }

    async fn build(
        sizes: Sizes,
        weights: VarBuilder<'static>,
        _: &LoadSteps,
    ) -> Result<Self, LoadError> {
        let sum = |(name, tensor): (String, Tensor)| {
            let values = tensor.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            Ok((name, checksum(values)))
        };
        let sums: candle::Result<_> = get(&sizes, &weights)?.into_iter().map(sum).collect();
        Ok(Self(sums?))
    }

    async fn infer(&self, (): (), _: Steps<Self>) -> Result<Self::Output, InferError> {
        Ok(self.0.clone())
    }
}

fn get(sizes: &Sizes, weights: &VarBuilder) -> candle::Result<Vec<(String, Tensor)>> {
    let tensor = |(name, size): (&String, &usize)| Ok((name.clone(), weights.get(*size, name)?));
    sizes.iter().map(tensor).collect()
}

/// Differs where a value does, or its place.
fn checksum(values: impl IntoIterator<Item = f32>) -> u64 {
    values.into_iter().fold(0, |sum: u64, value| {
        sum.wrapping_mul(31).wrapping_add(value as u64)
    })
}

/// The values of a tensor: whole numbers that a half float can be, too.
fn values(seed: usize, size: usize) -> impl Iterator<Item = f32> {
    let number = move |i: usize| ((i + seed).wrapping_mul(2_654_435_761) >> 16) & 2047;
    (0..size).map(move |i| number(i) as f32)
}

/// Writes a model, and returns its checksums.
fn write(folder: &Path, dtype: DType, elements: usize) -> BTreeMap<String, u64> {
    let sizes: Sizes = (0..5)
        .flat_map(|i| [(i * 2, elements / 5 + 3 * i), (i * 2 + 1, 1 + 700 * i)])
        .map(|(name, size)| (format!("{name}"), size))
        .collect();
    let tensor = |(seed, (name, size)): (usize, (&String, &usize))| {
        let values: Vec<f32> = values(seed, *size).collect();
        let tensor = Tensor::from_vec(values, *size, &Device::Cpu);
        let tensor = tensor.and_then(|tensor| tensor.to_dtype(dtype));
        (name.clone(), tensor.expect("a tensor"))
    };
    let tensors: BTreeMap<_, _> = sizes.iter().enumerate().map(tensor).collect();
    let file = folder.join("model.safetensors");
    safetensors::serialize_to_file(&tensors, None, &file).expect("room on the disk");
    let text = serde_json::to_string(&sizes).expect("text");
    std::fs::write(folder.join("sizes.json"), text).expect("room on the disk");
    let sum = |(seed, (name, size)): (usize, (&String, &usize))| {
        (name.clone(), checksum(values(seed, *size)))
    };
    sizes.iter().enumerate().map(sum).collect()
}

/// Has the system forget a file, where it can.
fn forget(path: &Path) {
    let file = File::open(path).expect("the file");
    file.sync_all().expect("a disk that works");
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;

        #[expect(unsafe_code, reason = "`posix_fadvise` has no safe wrapper")]
        // SAFETY: the file is open, and the advice changes nothing but what is kept of it.
        let refused =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(refused, 0, "the file is open");
    }
}

#[derive(Resource, Default)]
struct Arrived(Option<BTreeMap<String, u64>>);

/// The checksums of the weights as a manager loads them.
fn load(source: ModelSource) -> BTreeMap<String, u64> {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, ModelPlugin::<Sums>::default()))
        .init_resource::<Arrived>();
    app.world_mut()
        .resource_mut::<ModelManager<Sums>>()
        .load(source);
    app.world_mut().spawn(Infer::<Sums>::new(())).observe(
        |mut done: On<Inferred<Sums>>, mut arrived: ResMut<Arrived>| {
            arrived.0 = Some(done.take().expect("a model that was loaded"));
        },
    );
    run_until(&mut app, "the checksums", |world| {
        world.resource::<Arrived>().0.is_some()
    });
    let mut arrived = app.world_mut().resource_mut::<Arrived>();
    arrived.0.take().expect("seen just now")
}

#[test]
fn a_large_model_that_is_not_cached_arrives_whole_in_each_format() {
    for (stored, elements) in [(DType::F32, 18 * MIB), (DType::F16, 36 * MIB)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let written = write(folder.path(), stored, elements);
        for run in [DType::F32, DType::F16] {
            forget(&folder.path().join("model.safetensors"));
            let source = ModelSource::from(folder.path().to_path_buf()).dtype(run);
            assert_eq!(load(source), written, "{stored:?} that runs as {run:?}");
        }
    }
}
