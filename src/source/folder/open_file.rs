//! One file of a folder, open, and how it is read.

use std::{fs::File, io, path::Path};

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
