//! One file of a folder, open, and how it is read.

use std::{fs::File, io, mem::MaybeUninit, path::Path};

use super::Direct;

/// A file that all readers of a load share: reading takes an offset and moves no cursor.
pub(super) struct OpenFile {
    file: File,
    direct: Option<Direct>,
}

impl OpenFile {
    /// Opens a file, and nothing else: the open of a pipe would wait for somebody who writes to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !std::fs::metadata(path)?.is_file() {
            let error = "it is no file; a model folder has only files and folders";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let file = File::open(path)?;
        Ok(Self {
            direct: Direct::of(&file),
            file,
        })
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills `buf` with the bytes from `offset` on.
    pub(super) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let direct = self.direct.as_ref();
        let read = direct.map_or(0, |direct| direct.read(buf, offset));
        if read == buf.len() {
            return Ok(());
        }
        read_exact_at(&self.file, &mut buf[read..], offset + read as u64)
    }

    /// Fills `buf`, which need not be initialized, in one read through the cache. Returns nothing where that fails, or is
    /// not the fastest.
    pub(super) fn read_new<'buf>(
        &self,
        buf: &'buf mut [MaybeUninit<u8>],
        offset: u64,
    ) -> Option<&'buf mut [u8]> {
        let direct = self.direct.as_ref();
        if direct.is_some_and(|direct| direct.is_faster(offset, buf.len())) {
            return None;
        }
        read_new(&self.file, buf, offset)
    }
}

#[cfg(unix)]
fn read_new<'buf>(
    file: &File,
    buf: &'buf mut [MaybeUninit<u8>],
    offset: u64,
) -> Option<&'buf mut [u8]> {
    let (read, missing) = rustix::io::pread(file, buf, offset).ok()?;
    missing.is_empty().then_some(read)
}

#[cfg(not(unix))]
fn read_new<'buf>(_: &File, _: &'buf mut [MaybeUninit<u8>], _: u64) -> Option<&'buf mut [u8]> {
    None
}

#[cfg(unix)]
fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = &mut buf[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_exact_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_short_is_not_read_into_new_memory() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [1, 2, 3]).expect("room on the disk");
        let file = OpenFile::open(&path).expect("it is there");
        let mut buf = [MaybeUninit::uninit(); 2];
        assert_eq!(file.read_new(&mut buf, 1), Some(&mut [2, 3][..]));
        assert_eq!(file.read_new(&mut buf, 2), None);
    }
}
