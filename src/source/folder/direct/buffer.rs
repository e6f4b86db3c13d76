//! The buffer that a disk writes into, of each thread that reads directly.

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::FileExt,
    },
};

use memmap2::{Advice, MmapMut};

/// What offsets and lengths on the disk are multiples of.
pub(super) const SECTOR: usize = 4 << 10;

/// The least that is read at once: small tensors that follow are there already.
pub(super) const AHEAD: usize = 1 << 20;

/// A buffer is one huge page: the disk needs one address for it, and not one for each small page.
const BUFFER: usize = 2 << 20;

thread_local! {
    static OWN: RefCell<Option<Buffer>> = const { RefCell::new(None) };
}

/// While it lives, this thread reads large files directly. Its buffer goes back to the system with it.
pub(crate) struct DirectReads(());

impl DirectReads {
    pub(crate) fn begin() -> Self {
        OWN.set(Some(Buffer::default()));
        Self(())
    }
}

impl Drop for DirectReads {
    fn drop(&mut self) {
        OWN.set(None);
    }
}

/// Runs something with the buffer of this thread, where it has one.
pub(super) fn with_buffer<R>(run: impl FnOnce(&mut Buffer) -> R) -> Option<R> {
    OWN.with_borrow_mut(|own| own.as_mut().map(run))
}

/// A huge page, once it was filled, and what it has of which file.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Option<MmapMut>,
    file: Option<RawFd>,
    offset: u64,
    bytes: usize,
}

impl Buffer {
    /// What the buffer has from an offset of a file on. Files stay open as long as they are read.
    pub(super) fn rest_at(&self, file: &File, offset: u64) -> &[u8] {
        let Some(memory) = &self.memory else {
            return &[];
        };
        if self.file != Some(file.as_raw_fd()) {
            return &[];
        }
        let read = &memory[start(memory)..][..self.bytes];
        let from = offset.checked_sub(self.offset).map(usize::try_from);
        from.and_then(|from| read.get(from.ok()?..))
            .unwrap_or_default()
    }

    /// Reads what is wanted from an offset on, and a little more, as far as the buffer and the file go. Returns the
    /// bytes read.
    pub(super) fn fill(&mut self, file: &File, offset: u64, wanted: usize) -> io::Result<usize> {
        self.file = None;
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(map()?),
        };
        let first = offset / SECTOR as u64 * SECTOR as u64;
        let before = (offset - first) as usize;
        let bytes = (before + wanted.max(AHEAD)).next_multiple_of(SECTOR);
        let start = start(memory);
        self.bytes = file.read_at(&mut memory[start..][..bytes.min(BUFFER)], first)?;
        self.offset = first;
        self.file = Some(file.as_raw_fd());
        Ok(self.bytes)
    }
}

/// Straight from the system: what the heap keeps of a buffer would outlive the load.
fn map() -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(2 * BUFFER)?;
    // A system without huge pages has small ones.
    let _ = memory.advise_range(Advice::HugePage, start(&memory), BUFFER);
    Ok(memory)
}

/// Where the huge page begins.
fn start(memory: &MmapMut) -> usize {
    memory.as_ptr().align_offset(BUFFER).min(BUFFER)
}
