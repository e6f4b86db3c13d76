//! Where a model's bytes come from: [`ModelSource`], [`ModelId`], [`ModelFiles`].

use std::{
    fmt,
    mem::MaybeUninit,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::DType;

use crate::LoadError;

mod folder;
mod held;
mod id;
mod json;
mod memory;
mod variant;
pub(crate) use folder::{DirectReads, FolderFiles, checked as checked_name};
pub(crate) use held::HeldFiles;
pub use id::ModelId;
pub use json::read_json;
pub(crate) use json::read_small;
pub use memory::MemoryFiles;
use variant::VariantFiles;

/// The files of one model, however they are stored: a folder, an archive, a download cache, a test's gate.
///
/// All methods run on reader threads, never on the main thread, and may block. Names use `/` between
/// folders (`unet/config.json`).
///
/// ```
/// use bevy_candle::{LoadError, ModelFiles};
///
/// /// A model that is compiled into the game.
/// struct Embedded(&'static [(&'static str, &'static [u8])]);
///
/// impl Embedded {
///     fn find(&self, name: &str) -> Result<&'static [u8], LoadError> {
///         let entry = self.0.iter().find(|(key, _)| *key == name);
///         entry.map(|(_, bytes)| *bytes).ok_or_else(|| LoadError::FileMissing {
///             file: name.into(),
///             folder: "the game".into(),
///         })
///     }
/// }
///
/// impl ModelFiles for Embedded {
///     fn names(&self) -> Result<Vec<String>, LoadError> {
///         Ok(self.0.iter().map(|(name, _)| (*name).to_owned()).collect())
///     }
///     fn len(&self, name: &str) -> Result<u64, LoadError> {
///         Ok(self.find(name)?.len() as u64)
///     }
///     fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
///         let bytes = self.find(name)?;
///         let end = offset as usize + buf.len();
///         let part = bytes.get(offset as usize..end).ok_or(LoadError::CutShort {
///             file: name.into(),
///             expected: end as u64,
///             found: bytes.len() as u64,
///         })?;
///         buf.copy_from_slice(part);
///         Ok(())
///     }
/// }
/// # let files = Embedded(&[("a.txt", b"hello")]);
/// # let mut buf = [0; 2];
/// # files.read_at("a.txt", 1, &mut buf).unwrap();
/// # assert_eq!(&buf, b"el");
/// # assert!(files.read_at("a.txt", 4, &mut buf).is_err());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not give the files of a model",
    label = "not `ModelFiles`",
    note = "a folder is a `ModelSource` by its path, bytes in memory are `MemoryFiles`; for anything else implement \
            `ModelFiles`"
)]
pub trait ModelFiles: Send + Sync {
    /// Lists the files of the model, for pipelines that look for them. A folder leaves out what is in a folder below it
    /// that nobody may read.
    ///
    /// # Errors
    /// [`LoadError::FolderMissing`] or [`LoadError::Io`] where the listing itself fails.
    fn names(&self) -> Result<Vec<String>, LoadError>;

    /// Returns the length of a file in bytes.
    ///
    /// # Errors
    /// [`LoadError::FileMissing`] where there is no such file.
    fn len(&self, name: &str) -> Result<u64, LoadError>;

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`LoadError::CutShort`] where the file ends before `buf` is full, [`LoadError::Io`] where the
    /// read fails.
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError>;

    /// Fills `buf`, in which nothing was written yet, and returns it; nothing where only
    /// [`read_at`](Self::read_at) can, or can say why not. Spares large loads a pass over their memory. Only folders have it:
    /// a wrapper of other files does without.
    #[doc(hidden)]
    fn read_new<'buf>(
        &self,
        _name: &str,
        _offset: u64,
        _buf: &'buf mut [MaybeUninit<u8>],
    ) -> Option<&'buf mut [u8]> {
        None
    }
}

/// What to load: where the files are, and how to run them.
///
/// Made from a path (`"models/sprites".into()`), which is a folder under the app's asset folder or
/// absolute, or from [`ModelSource::files`]. Two sources are equal when their place, their number
/// format and their variant are: `load` of an equal source is no new load.
///
/// ```
/// use bevy_candle::{ModelSource, candle::DType};
///
/// let folder = ModelSource::from("models/sprites");          // under the app's asset folder
/// let small = ModelSource::from("models/sprites").dtype(DType::F16);
/// assert_ne!(folder, small, "another number format is another model");
/// assert_eq!(folder.id().to_string(), "models/sprites");
/// ```
#[derive(Clone)]
pub struct ModelSource {
    place: Place,
    dtype: Option<DType>,
    variant: Option<Arc<str>>,
}

#[derive(Clone)]
enum Place {
    Folder(Arc<Path>),
    Files { id: Arc<str>, files: HeldFiles },
}

impl ModelSource {
    /// Takes the files from anywhere. The id tells two such sources apart. Where this crate is the last to have them, they are
    /// dropped on a reader thread, while an app with models runs.
    pub fn files(id: impl Into<String>, files: Arc<dyn ModelFiles>) -> Self {
        Self::at(Place::Files {
            id: id.into().into(),
            files: HeldFiles::new(files),
        })
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            dtype: None,
            variant: None,
        }
    }

    /// Sets the number format that the weights run in: [`DType::F32`], which is the default, `F16`, `BF16`
    /// or `F64`. They are converted while they are read. Others fail to load.
    ///
    /// candle 0.11 has no matrix product in `BF16` on the CPU: there [`DdpmPipeline`](crate::DdpmPipeline) refuses to load
    /// with [`LoadError::UnsupportedRunDtype`], and a job of any other pipeline fails at its first product.
    #[must_use]
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// Prefers files with this variant in their names, as diffusers does: `variant("fp16")` reads
    /// `diffusion_pytorch_model.fp16.safetensors`.
    #[must_use]
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into().into());
        self
    }

    /// Returns the name under which the model is reported.
    pub fn id(&self) -> ModelId {
        match &self.place {
            Place::Folder(path) => ModelId::from(&*path.to_string_lossy()),
            Place::Files { id, .. } => ModelId::from(&**id),
        }
    }

    /// Returns the number format to run in.
    pub(crate) fn run_dtype(&self) -> DType {
        self.dtype.unwrap_or(DType::F32)
    }

    /// Opens the files; a relative folder starts at `root`. Reads nothing yet.
    pub(crate) fn open(&self, root: &Path) -> HeldFiles {
        let files = match &self.place {
            Place::Folder(path) => HeldFiles::new(Arc::new(FolderFiles::new(root.join(path)))),
            Place::Files { files, .. } => files.clone(),
        };
        match &self.variant {
            Some(variant) => {
                let variant = VariantFiles::new(files, variant.clone());
                HeldFiles::new(Arc::new(variant))
            }
            None => files,
        }
    }
}

impl PartialEq for ModelSource {
    fn eq(&self, other: &Self) -> bool {
        let same_place = match (&self.place, &other.place) {
            (Place::Folder(a), Place::Folder(b)) => a == b,
            (Place::Files { id: a, .. }, Place::Files { id: b, .. }) => a == b,
            _ => false,
        };
        same_place && self.dtype == other.dtype && self.variant == other.variant
    }
}

impl Eq for ModelSource {}

impl fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSource")
            .field("id", &self.id())
            .field("dtype", &self.run_dtype())
            .field("variant", &self.variant)
            .finish()
    }
}

impl From<&str> for ModelSource {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

impl From<String> for ModelSource {
    fn from(path: String) -> Self {
        PathBuf::from(path).into()
    }
}

impl From<PathBuf> for ModelSource {
    fn from(path: PathBuf) -> Self {
        Self::at(Place::Folder(path.into()))
    }
}
