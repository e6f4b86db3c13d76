//! Reads around the system's cache: of a large file that is not in it, from a disk that is fast.
//!
//! What is read through the cache is copied twice by the processor and put away page by page. On a disk of gigabytes a
//! second that is what a first load waits for, and what takes the cores from the game. Read directly (`O_DIRECT`), the
//! disk writes into a buffer, from where the bytes are copied once. They are not in the cache afterwards: the next load
//! reads them from the disk again, which takes as long. So a slow disk is read through the cache.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use memmap2::{Advice, MmapMut};

/// Files from so many bytes on: others are read in milliseconds anyway, and are better kept.
const LARGE_FILE: u64 = 64 << 20;

/// Reads from so many bytes on: smaller ones make a disk wait for the next.
const LARGE_READ: usize = 256 << 10;

/// What offsets and lengths on the disk are multiples of.
const SECTOR: usize = 4 << 10;

/// A buffer is one huge page: the disk needs one address for it, and not one for each small page.
const BUFFER: usize = 2 << 20;

/// How slow a reader may find the disk: some readers together then get 1 GiB a second or more.
const SLOWEST: Duration = Duration::from_millis(2);
const SLOWEST_PER: u64 = 1 << 20;

/// So many bytes are read before a disk is called slow.
const TRIED: u64 = 8 << 20;

/// A large file, open for direct reads.
pub(super) struct Direct {
    file: File,
    is_off: AtomicBool,
    bytes: AtomicU64,
    nanos: AtomicU64,
    spare: Mutex<Vec<Buffer>>,
}

impl Direct {
    /// Opens the same file once more, where it is large and its file system has direct reads.
    pub(super) fn of(file: &File) -> Option<Self> {
        let bytes = file.metadata().ok()?.len();
        (bytes >= LARGE_FILE).then(|| Self::open(file).ok())?
    }

    fn open(file: &File) -> io::Result<Self> {
        // By its number and not by its name, which may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_DIRECT).open(path)?;
        Ok(Self {
            file,
            is_off: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            spare: Mutex::default(),
        })
    }

    /// Reads the bytes from `offset` on, where that is the faster way. Returns how many it has read: the rest, and any
    /// error, is for a read through the cache.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> usize {
        if into.len() < LARGE_READ || self.is_off.load(Relaxed) || is_cached(&self.file, offset) {
            return 0;
        }
        let begun = Instant::now();
        let read = self.read_through_buffer(into, offset).unwrap_or(0);
        if read < into.len() {
            self.is_off.store(true, Relaxed);
        }
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let bytes = self.bytes.fetch_add(read as u64, Relaxed) + read as u64;
        let nanos = self.nanos.fetch_add(took, Relaxed).saturating_add(took);
        if is_slow(bytes, Duration::from_nanos(nanos)) {
            self.is_off.store(true, Relaxed);
        }
        read
    }

    fn read_through_buffer(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = spare().pop();
        let mut buffer = kept.map_or_else(Buffer::map, Ok)?;
        let mut done = 0;
        while done < into.len() {
            let left = into.len() - done;
            let read = buffer.read(&self.file, offset + done as u64, left)?;
            if read.is_empty() {
                break;
            }
            into[done..done + read.len()].copy_from_slice(read);
            done += read.len();
        }
        spare().push(buffer);
        Ok(done)
    }
}

/// Whether a disk that has given so many bytes in this time is better read through the cache.
fn is_slow(bytes: u64, took: Duration) -> bool {
    let allowed = SLOWEST.as_nanos() * u128::from(bytes / SLOWEST_PER);
    bytes >= TRIED && took.as_nanos() > allowed
}

/// Whether the system has the page at this offset in its cache. One that does not say counts as one that has it.
fn is_cached(file: &File, offset: u64) -> bool {
    /// The same on each architecture that this file is compiled for.
    const CACHESTAT: libc::c_long = 451;
    let range = [offset, 1];
    let mut counts = [0_u64; 5];
    #[expect(unsafe_code, reason = "`cachestat` has no wrapper")]
    // SAFETY: it reads a `cachestat_range`, which is two `u64`, and writes a `cachestat`, which is five; both live until
    // it returns.
    let refused = unsafe {
        let (range, counts) = (range.as_ptr(), counts.as_mut_ptr());
        libc::syscall(CACHESTAT, file.as_raw_fd(), range, counts, 0_u32)
    };
    refused != 0 || counts[0] > 0
}

/// A huge page that a disk can write into. It goes back to the system as soon as it is dropped.
struct Buffer {
    memory: MmapMut,
    start: usize,
}

impl Buffer {
    fn map() -> io::Result<Self> {
        let memory = MmapMut::map_anon(2 * BUFFER)?;
        let start = memory.as_ptr().align_offset(BUFFER).min(BUFFER);
        // A system without huge pages has small ones.
        let _ = memory.advise_range(Advice::HugePage, start, BUFFER);
        Ok(Self { memory, start })
    }

    /// Reads up to so many bytes from `offset` on, as far as the buffer and the file go.
    fn read(&mut self, file: &File, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let before = (offset % SECTOR as u64) as usize;
        let bytes = (before + wanted).next_multiple_of(SECTOR).min(BUFFER);
        let memory = &mut self.memory[self.start..][..bytes];
        let read = file.read_at(memory, offset - before as u64)?;
        let end = read.min(before + wanted);
        Ok(memory.get(before..end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// A file of five mebibytes, and its bytes.
    fn file() -> (File, Vec<u8>) {
        let file = tempfile::tempfile().expect("a temporary file");
        let bytes: Vec<u8> = (0..5 * MIB as u32 + 1234)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        file.write_all_at(&bytes, 0).expect("room on the disk");
        file.sync_all().expect("a disk that works");
        (file, bytes)
    }

    /// Has the system forget the file. A file system that is all memory cannot.
    fn forget(file: &File) -> bool {
        #[expect(unsafe_code, reason = "`posix_fadvise` has no safe wrapper")]
        // SAFETY: the file is open, and the advice changes nothing but what is kept of it.
        let refused =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(refused, 0, "the file is open");
        !is_cached(file, 0)
    }

    #[test]
    fn what_is_not_cached_is_read_around_the_cache() {
        let (file, bytes) = file();
        if !forget(&file) {
            eprintln!("the file system keeps its files in memory: nothing to read directly");
            return;
        }
        let direct = Direct::open(&file).expect("a file system with direct reads");
        for (offset, len) in [
            (0, LARGE_READ),
            (1, MIB),
            (SECTOR, 4 * MIB),
            (4095, 2 * MIB),
            (bytes.len() - MIB, MIB),
        ] {
            let mut into = vec![0; len];
            assert_eq!(direct.read(&mut into, offset as u64), len, "{offset} {len}");
            assert!(into == bytes[offset..offset + len], "{offset} {len}");
            assert!(!is_cached(&file, offset as u64), "{offset} {len}");
        }
    }

    #[test]
    fn a_file_that_ends_early_is_left_to_the_cache() {
        let (file, bytes) = file();
        if !forget(&file) {
            return;
        }
        let direct = Direct::open(&file).expect("a file system with direct reads");
        let mut into = vec![0; MIB];
        assert_eq!(direct.read(&mut into, bytes.len() as u64 - 10), 10);
        assert_eq!(direct.read(&mut into, 0), 0, "after an error");
    }

    #[test]
    fn what_is_cached_or_small_is_left_to_the_cache() {
        let (file, _) = file();
        let Ok(direct) = Direct::open(&file) else {
            return;
        };
        let mut into = vec![0; MIB];
        file.read_exact_at(&mut into, 0).expect("a mebibyte");
        assert_eq!(direct.read(&mut into, 0), 0);
        forget(&file);
        assert_eq!(direct.read(&mut into[..LARGE_READ - 1], 0), 0);
        assert!(Direct::of(&file).is_none(), "the file is small");
    }

    #[test]
    fn a_disk_is_slow_when_it_was_tried_and_gave_little() {
        let slow = Duration::from_millis(17);
        assert!(is_slow(8 * MIB as u64, slow));
        assert!(!is_slow(7 * MIB as u64, slow), "not tried enough");
        assert!(!is_slow(9 * MIB as u64, slow), "fast enough");
    }
}
