//! What counting, looking for cancels and showing progress cost a load.

use std::{
    cell::Cell,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::prelude::*;

use super::{
    figures::median,
    main_thread::{OnMainThread, watch_main_thread},
    settings::settings,
    stack::{CONFIG, Stack, WEIGHTS},
};

/// A frame at 60 Hz.
const FRAME: Duration = Duration::from_micros(16_667);

/// Nanoseconds of processor time that the readers had inside of a read, and between two reads of the same tensor.
static READING: AtomicU64 = AtomicU64::new(0);
static BETWEEN: AtomicU64 = AtomicU64::new(0);

/// How often a reader was looked at between two reads.
static LOOKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Where the last read of this thread has ended, and at what processor time of the thread.
    static LAST: Cell<Option<(u64, Duration)>> = const { Cell::new(None) };
}

/// The part of a load that is no reading: what readers do between two chunks of a tensor, and what the main thread
/// does about it at 60 Hz. Both are upper bounds: a chunk's progress is a part of what happens between chunks. What the
/// clock takes by itself is no part of either.
pub fn progress_cost(folder: &Path) -> [f64; 2] {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, settings(), ModelPlugin::<Stack>::default()));
    watch_main_thread(&mut app);
    app.finish();
    app.cleanup();
    app.update();
    let files = Arc::new(TimedFiles(folder.to_path_buf()));
    let begun = Instant::now();
    app.world_mut()
        .resource_mut::<ModelManager<Stack>>()
        .load(ModelSource::files("timed", files));
    while !is_loaded(&app) {
        let begun = Instant::now();
        app.update();
        std::thread::sleep(FRAME.saturating_sub(begun.elapsed()));
    }
    let load = begun.elapsed().as_secs_f64();
    let (reading, between) = (READING.load(Relaxed) as f64, BETWEEN.load(Relaxed) as f64);
    let between = (between - LOOKS.load(Relaxed) as f64 * look()).max(0.0);
    let on_main = app.world().resource::<OnMainThread>().total.as_secs_f64();
    [between / (reading + between) + on_main / load, 0.0]
}

/// Nanoseconds that a look at the clock takes by itself.
fn look() -> f64 {
    let looks = (0..10_000).map(|_| {
        let begun = thread_time();
        (thread_time() - begun).as_nanos() as f64
    });
    median(&looks.collect::<Vec<_>>())
}

/// The processor time of the calling thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(unsafe_code, reason = "the clock has no safe wrapper")]
    // SAFETY: it writes one `timespec`, which lives until it returns.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(read, 0, "the system has such a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn is_loaded(app: &App) -> bool {
    let manager = app.world().resource::<ModelManager<Stack>>();
    manager.current_state.is_loaded()
}

/// A folder that takes the time of its reads.
struct TimedFiles(PathBuf);

impl TimedFiles {
    fn open(&self, name: &str) -> Result<File, LoadError> {
        let explain = |source| LoadError::Io {
            file: name.into(),
            source,
        };
        File::open(self.0.join(name)).map_err(explain)
    }
}

impl ModelFiles for TimedFiles {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        Ok(vec![CONFIG.into(), WEIGHTS.into()])
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        Ok(self.open(name)?.metadata().map_or(0, |data| data.len()))
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        let begun = thread_time();
        if let Some((_, time)) = LAST.get().filter(|(end, _)| *end == offset) {
            BETWEEN.fetch_add((begun - time).as_nanos() as u64, Relaxed);
            LOOKS.fetch_add(1, Relaxed);
        }
        let read = self.open(name)?.read_exact_at(buf, offset);
        let ended = thread_time();
        READING.fetch_add((ended - begun).as_nanos() as u64, Relaxed);
        LAST.set(Some((offset + buf.len() as u64, ended)));
        read.map_err(|source| LoadError::Io {
            file: name.into(),
            source,
        })
    }
}
