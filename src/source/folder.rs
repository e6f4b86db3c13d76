//! A folder on disk as [`ModelFiles`].

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::ModelFiles;
use crate::LoadError;

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod direct;
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
#[path = "folder/no_direct.rs"]
mod direct;
mod open_file;
use direct::Direct;
pub(crate) use direct::DirectReads;
use open_file::OpenFile;

/// How deep below the model's folder files are listed; deeper ones can still be read by their names.
const MAX_DEPTH: usize = 4;

/// How many files and folders are listed: a link may lead anywhere.
const MAX_ENTRIES: u32 = 100_000;

/// Reads files below one folder, and keeps each open until the load is over.
pub(crate) struct FolderFiles {
    folder: PathBuf,
    open: Mutex<HashMap<String, Arc<OpenFile>>>,
}

impl FolderFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
        }
    }

    /// The open file, shared by all readers: reading takes an offset and moves no cursor.
    fn file(&self, name: &str) -> Result<Arc<OpenFile>, LoadError> {
        if let Some(file) = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return Ok(file.clone());
        }
        let path = self.folder.join(checked(name)?);
        let file = OpenFile::open(&path).map_err(|error| self.explain(name, error))?;
        let file = Arc::new(file);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(open.entry(name.to_owned()).or_insert(file).clone())
    }

    /// Says which of folder and file is missing, or that reading failed.
    fn explain(&self, name: &str, error: io::Error) -> LoadError {
        let folder = || self.folder.display().to_string();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !self.folder.is_dir() => {
                LoadError::FolderMissing { folder: folder() }
            }
            io::ErrorKind::NotFound => LoadError::FileMissing {
                file: name.into(),
                folder: folder(),
            },
            _ => LoadError::Io {
                file: name.into(),
                source: error,
            },
        }
    }
}

impl ModelFiles for FolderFiles {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        let (mut names, mut left) = (Vec::new(), MAX_ENTRIES);
        list(
            &self.folder,
            String::new(),
            MAX_DEPTH,
            &mut left,
            &mut names,
        )
        .map_err(|error| self.explain(".", error))?;
        names.sort();
        Ok(names)
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        let file = self.file(name)?;
        file.len().map_err(|error| self.explain(name, error))
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        let file = self.file(name)?;
        let read = file.read_exact_at(buf, offset);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LoadError::CutShort {
                file: name.into(),
                expected: offset + buf.len() as u64,
                found: file.len().unwrap_or_default(),
            },
            _ => LoadError::Io {
                file: name.into(),
                source: error,
            },
        })
    }

    fn read_new<'buf>(
        &self,
        name: &str,
        offset: u64,
        buf: &'buf mut [MaybeUninit<u8>],
    ) -> Option<&'buf mut [u8]> {
        self.file(name).ok()?.read_new(buf, offset)
    }
}

/// A name from an index or a game's code as a relative path, or why it is none.
pub(crate) fn checked(name: &str) -> Result<&Path, LoadError> {
    let path = Path::new(name);
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    // One file has one name: `a/./b` and `a//b` are others for `a/b`.
    let is_plain = !name.split('/').any(|part| part.is_empty() || part == ".");
    if !is_plain || !inside || name.contains(['\\', ':']) {
        return Err(LoadError::UnsafeName { name: name.into() });
    }
    Ok(path)
}

fn list(
    folder: &Path,
    prefix: String,
    depth: usize,
    left: &mut u32,
    names: &mut Vec<String>,
) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        *left = left.checked_sub(1).ok_or_else(|| {
            io::Error::other(format!("a model folder has at most {MAX_ENTRIES} entries"))
        })?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Follows links: hub caches are made of them.
        let Ok(data) = entry.path().metadata() else {
            continue;
        };
        if data.is_file() {
            names.push(format!("{prefix}{name}"));
        } else if data.is_dir() && depth > 0 {
            let prefix = format!("{prefix}{name}/");
            match list(&entry.path(), prefix, depth - 1, left, names) {
                // As a file that nobody may read: who asks for it hears why.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                listed => listed?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in [
            "..",
            "../a",
            "a/../b",
            "/etc/passwd",
            "",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "c:\\a",
            "a\\..\\b",
            "\\\\host\\a",
        ] {
            let refused = matches!(checked(name), Err(LoadError::UnsafeName { .. }));
            assert!(refused, "{name:?} should be refused");
        }
        for name in ["a", "a/b.json", "..a", "a..b/c"] {
            assert!(checked(name).is_ok(), "{name:?} should be fine");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join("pipe"))
            .status();
        assert!(made.is_ok_and(|status| status.success()), "a pipe");
        let files = FolderFiles::new(folder.path().to_path_buf());
        let refused = files.len("pipe");
        assert!(matches!(refused, Err(LoadError::Io { .. })), "{refused:?}");
    }

    #[test]
    fn files_below_the_folder_are_listed_with_slashes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("unet")).expect("a folder");
        std::fs::write(folder.path().join("unet/config.json"), "{}").expect("a file");
        std::fs::write(folder.path().join("a.txt"), "a").expect("a file");
        let files = FolderFiles::new(folder.path().into());
        assert_eq!(
            files.names().expect("a listing"),
            ["a.txt", "unet/config.json"]
        );
        assert_eq!(files.len("unet/config.json").expect("a length"), 2);
    }

    #[test]
    fn a_folder_with_too_many_entries_is_not_listed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("unet")).expect("a folder");
        std::fs::write(folder.path().join("unet/config.json"), "{}").expect("a file");
        for (mut left, is_enough) in [(1, false), (2, true)] {
            let mut names = Vec::new();
            let listed = list(folder.path(), String::new(), 1, &mut left, &mut names);
            assert_eq!(listed.is_ok(), is_enough, "{listed:?}");
        }
    }

    #[test]
    fn a_missing_folder_and_a_missing_file_are_told_apart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let missing = FolderFiles::new(folder.path().join("nope"));
        assert!(matches!(
            missing.len("a"),
            Err(LoadError::FolderMissing { .. })
        ));
        let empty = FolderFiles::new(folder.path().into());
        assert!(matches!(empty.len("a"), Err(LoadError::FileMissing { .. })));
    }

    #[test]
    fn reading_past_the_end_is_an_error_with_both_lengths() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("a"), [1, 2, 3]).expect("a file");
        let files = FolderFiles::new(folder.path().into());
        let mut buf = [0; 2];
        files.read_at("a", 1, &mut buf).expect("two bytes");
        assert_eq!(buf, [2, 3]);
        let short = files.read_at("a", 2, &mut buf);
        assert!(matches!(
            short,
            Err(LoadError::CutShort {
                expected: 4,
                found: 3,
                ..
            })
        ));
    }
}
