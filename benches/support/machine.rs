//! What the system says about this process, its files and its pages. Only Linux is asked.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{fs, fs::File, hint::black_box, io, path::Path};

/// Bytes of this process in physical memory.
pub fn resident() -> u64 {
    status("VmRSS:")
}

/// The most bytes that this process has had in physical memory.
pub fn peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// How the system hands out huge pages.
pub fn huge_pages() -> String {
    let mode = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let mode = mode.unwrap_or_default();
    let chosen = mode.split(['[', ']']).nth(1);
    chosen.unwrap_or("unknown").to_owned()
}

/// Has the system keep a file in its cache: some take what was not read for a while out of it.
pub fn read_into_cache(path: &Path) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut file = File::open(path)?;
    while io::Read::read(&mut file, &mut buffer)? > 0 {}
    Ok(())
}

/// Touches three times so many bytes of memory, in huge pages, and frees them: the host of a virtual machine takes memory
/// that was free for two seconds, and giving it back takes ten times as long as a load. That is not what is measured.
pub fn touch_memory(bytes: u64) {
    touch(3 * bytes);
}

/// Touches so many bytes of memory, in huge pages where the system has them, and frees them.
pub fn touch(bytes: u64) {
    let mut memory = vec![0_u8; bytes as usize];
    let page = memory.as_ptr().align_offset(2 << 20);
    let pages = &mut memory[page..];
    advise_huge_pages(pages);
    pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    black_box(memory);
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(pages: &mut [u8]) {
    #[expect(unsafe_code, reason = "`madvise` has no safe wrapper")]
    // SAFETY: the range is memory of the caller, and the advice changes nothing that is in it.
    unsafe {
        libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: &mut [u8]) {}

/// Has the system forget what it keeps of a file. Returns whether that worked.
#[cfg(target_os = "linux")]
pub fn forget_file(path: &Path) -> io::Result<bool> {
    use std::os::fd::AsRawFd;

    let file = File::open(path)?;
    file.sync_all()?;
    #[expect(unsafe_code, reason = "`posix_fadvise` has no safe wrapper")]
    // SAFETY: the file is open, and the advice changes nothing but what is kept of it.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(refused == 0 && kept_part(&file)? < 0.01)
}

#[cfg(not(target_os = "linux"))]
pub fn forget_file(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// The part of a file's pages that are in memory.
#[cfg(target_os = "linux")]
fn kept_part(file: &File) -> io::Result<f64> {
    use std::{os::fd::AsRawFd, ptr::null_mut};

    let bytes = file.metadata()?.len() as usize;
    let mut pages = vec![0_u8; bytes.div_ceil(4096)];
    #[expect(unsafe_code, reason = "`mincore` has no safe wrapper")]
    // SAFETY: the mapping is private to this block, never read and unmapped again; there is a byte for each of its
    // pages.
    let refused = unsafe {
        let (read, private) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let start = libc::mmap(null_mut(), bytes, read, private, file.as_raw_fd(), 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let refused = libc::mincore(start, bytes, pages.as_mut_ptr());
        libc::munmap(start, bytes);
        refused
    };
    if refused != 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = pages.iter().filter(|page| **page & 1 == 1).count();
    Ok(kept as f64 / pages.len() as f64)
}
