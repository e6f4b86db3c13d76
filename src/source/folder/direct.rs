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
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bevy::platform::time::Instant;

mod buffer;

pub(crate) use buffer::DirectReads;
use buffer::{AHEAD, Buffer, with_buffer};

/// Files from so many bytes on: others are read in milliseconds anyway, and are better kept.
const LARGE_FILE: u64 = 64 << 20;

/// How long the fastest read of a mebibyte may take: some readers together then get a gibibyte a second or so. The
/// others may have waited for a core, which says nothing about the disk.
const SLOWEST: Duration = Duration::from_micros(1500);

/// So many reads are tried before a disk is called slow.
const TRIED: u32 = 16;

const MIB: u128 = 1 << 20;

/// A large file, open for direct reads.
pub(super) struct Direct {
    file: File,
    length: u64,
    is_off: AtomicBool,
    pace: Pace,
}

impl Direct {
    /// Opens the same file once more, where it is large and its file system has direct reads.
    pub(super) fn of(file: &File) -> Option<Self> {
        let length = file.metadata().ok()?.len();
        if length < LARGE_FILE || !shows_its_cache(file) {
            return None;
        }
        Self::open(file, length).ok()
    }

    fn open(file: &File, length: u64) -> io::Result<Self> {
        // By its number and not by its name, which may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_DIRECT).open(path)?;
        Ok(Self {
            file,
            length,
            is_off: AtomicBool::new(false),
            pace: Pace::new(),
        })
    }

    /// Reads the bytes from `offset` on, as far as that is the faster way. Returns how many it has read: the rest, and
    /// any error, is for a read through the cache.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> usize {
        if self.is_off.load(Relaxed) {
            return 0;
        }
        with_buffer(|buffer| self.read_with(buffer, into, offset)).unwrap_or(0)
    }

    fn read_with(&self, buffer: &mut Buffer, into: &mut [u8], offset: u64) -> usize {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let is_there = !buffer.rest_at(&self.file, at).is_empty();
            if !is_there && !self.fill(buffer, at, into.len() - done) {
                break;
            }
            let ready = buffer.rest_at(&self.file, at);
            let bytes = ready.len().min(into.len() - done);
            into[done..done + bytes].copy_from_slice(&ready[..bytes]);
            done += bytes;
        }
        done
    }

    /// Whether a read of so many bytes from an offset on goes around the cache.
    pub(super) fn is_faster(&self, offset: u64, wanted: usize) -> bool {
        // The system reads ahead: what it has of a first page may end just behind it.
        let last = (offset + wanted.max(AHEAD) as u64).min(self.length).max(1) - 1;
        !self.is_off.load(Relaxed) && !is_cached(&self.file, last)
    }

    /// Fills the buffer from an offset on. Returns whether anything was there, and not in the cache.
    fn fill(&self, buffer: &mut Buffer, offset: u64, wanted: usize) -> bool {
        if !self.is_faster(offset, wanted) {
            return false;
        }
        let begun = Instant::now();
        let read = buffer.fill(&self.file, offset, wanted).unwrap_or(0);
        if read == 0 || self.pace.is_slow(read, begun.elapsed()) {
            self.is_off.store(true, Relaxed);
        }
        !buffer.rest_at(&self.file, offset).is_empty()
    }
}

/// How fast a disk is.
struct Pace {
    reads: AtomicU32,
    /// How long the fastest read took, in nanoseconds a mebibyte.
    fastest: AtomicU64,
}

impl Pace {
    const fn new() -> Self {
        Self {
            reads: AtomicU32::new(0),
            fastest: AtomicU64::new(u64::MAX),
        }
    }

    /// Whether the disk is slow, so far, after one more read.
    fn is_slow(&self, bytes: usize, took: Duration) -> bool {
        let took = u64::try_from(took.as_nanos() * MIB / bytes as u128).unwrap_or(u64::MAX);
        let fastest = self.fastest.fetch_min(took, Relaxed).min(took);
        let reads = self.reads.fetch_add(1, Relaxed) + 1;
        reads >= TRIED && Duration::from_nanos(fastest) > SLOWEST
    }
}

/// Whether what is read of a file shows as cached. Of a file on an overlay it does not: the file below has the pages.
fn shows_its_cache(file: &File) -> bool {
    file.read_exact_at(&mut [0], 0).is_ok() && is_cached(file, 0)
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

#[cfg(test)]
mod tests {
    use super::{buffer::SECTOR, *};

    const MIB: usize = super::MIB as usize;

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
        let is_forgotten = !is_cached(file, 0);
        if !is_forgotten {
            tracing::warn!("the files are in memory for ever: nothing is read directly");
        }
        is_forgotten
    }

    /// A file that is not cached, open for direct reads, and its bytes; nothing where the system has neither.
    fn forgotten() -> Option<(Direct, File, Vec<u8>)> {
        let (file, bytes) = file();
        let direct = Direct::open(&file, bytes.len() as u64).ok();
        let direct = direct.filter(|_| forget(&file))?;
        Some((direct, file, bytes))
    }

    #[test]
    fn what_is_not_cached_is_read_around_the_cache() {
        let Some((direct, file, bytes)) = forgotten() else {
            return;
        };
        let _reads = DirectReads::begin();
        for (offset, len) in [
            (0, 8),
            (8, 3 * SECTOR),
            (20 * SECTOR, AHEAD),
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
    fn what_follows_a_small_read_is_there_already() {
        let Some((direct, _, bytes)) = forgotten() else {
            return;
        };
        let _reads = DirectReads::begin();
        let mut into = [0; 100];
        for offset in (10..AHEAD).step_by(50_000) {
            assert_eq!(direct.read(&mut into, offset as u64), 100);
            assert_eq!(into[..], bytes[offset..offset + 100]);
        }
        assert_eq!(direct.pace.reads.load(Relaxed), 1, "all at once");
    }

    #[test]
    fn only_who_has_begun_to_read_directly_does() {
        let Some((one, file, bytes)) = forgotten() else {
            return;
        };
        let other = Direct::open(&file, bytes.len() as u64).expect("opened once already");
        let mut into = [0; 8];
        assert_eq!(one.read(&mut into, 0), 0);
        let reads = DirectReads::begin();
        assert_eq!(one.read(&mut into, 0), 8);
        assert_eq!(other.read(&mut into, 0), 8);
        let read = other.pace.reads.load(Relaxed);
        assert_eq!(read, 1, "the buffer had another file's bytes");
        drop(reads);
        assert_eq!(one.read(&mut into, 0), 0);
    }

    #[test]
    fn what_lies_behind_the_end_is_left_to_the_cache() {
        let Some((direct, _, bytes)) = forgotten() else {
            return;
        };
        let _reads = DirectReads::begin();
        let mut into = vec![0; MIB];
        assert_eq!(direct.read(&mut into, bytes.len() as u64 - 10), 10);
        assert_eq!(into[..10], bytes[bytes.len() - 10..]);
        assert_eq!(direct.read(&mut into, bytes.len() as u64 + 10), 0);
    }

    #[test]
    fn what_is_cached_is_left_to_the_cache() {
        let Some((direct, file, _)) = forgotten() else {
            return;
        };
        let _reads = DirectReads::begin();
        let mut into = vec![0; MIB];
        file.read_exact_at(&mut into, 0).expect("a mebibyte");
        assert_eq!(direct.read(&mut into, 0), 0);
        assert!(forget(&file));
        assert_eq!(direct.read(&mut into, 0), MIB);
    }

    #[test]
    fn only_large_files_are_read_directly() {
        let Some((_, file, _)) = forgotten() else {
            return;
        };
        assert!(Direct::of(&file).is_none(), "it has five mebibytes");
        file.set_len(LARGE_FILE).expect("a file of holes");
        assert!(Direct::of(&file).is_some());
    }

    #[test]
    fn a_disk_is_slow_when_not_even_its_fastest_read_was_fast() {
        let slow = Duration::from_millis(2);
        let is_slow = |pace: &Pace| (0..TRIED).any(|_| pace.is_slow(MIB, slow));
        assert!(is_slow(&Pace::new()));
        let busy = Pace::new();
        assert!(!busy.is_slow(MIB / 2, slow / 4));
        assert!(!is_slow(&busy), "one read was fast");
        let tried = Pace::new();
        assert!(
            (1..TRIED).all(|_| !tried.is_slow(MIB, slow)),
            "not tried enough"
        );
    }
}
