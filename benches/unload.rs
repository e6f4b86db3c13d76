//! What an unload of 1 GiB costs the main thread, how long it takes, and how much the system gets back.
//!
//! ```text
//! cargo bench --bench unload
//! ```
//!
//! `unload_*_main_us` is the time of the crate's systems in all frames from the request to Idle, together;
//! `unload_*_ms_per_gib` is from the request to Idle in frames of a millisecond; `unload_*_returned_ratio` is by how much the
//! process has shrunk in physical memory, over the bytes claimed. For a model of many layers, and for one of few large
//! tensors; medians of the cycles, for the ratio the worst.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support {
    pub mod figures;
    pub mod machine;
    pub mod main_thread;
    pub mod settings;
    pub mod stack;
    pub mod weights;
}

use std::{
    io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bevy::prelude::*;
use bevy_candle::{prelude::*, test_kit::run_until_state};
use support::{
    figures::{Figures, median, ms, quantile, us, worst},
    machine::resident,
    main_thread::{OnMainThread, watch_main_thread},
    settings::settings,
    stack::Stack,
    weights::{Folder, GIB, Set},
};

/// How often a model comes and goes.
const CYCLES: usize = 9;

/// Frames while a model goes.
const FRAME: Duration = Duration::from_millis(1);

fn main() -> io::Result<ExitCode> {
    let mut figures = Figures::default();
    for set in [Set::Many, Set::Large] {
        let folder = Folder::make(set)?;
        let name = format!("{set:?}").to_lowercase();
        println!("unload_{name}_bytes {}", folder.bytes);
        let cycles = come_and_go(&folder);
        let each = |value: fn(&Unload) -> f64| cycles.iter().map(value).collect::<Vec<_>>();
        let (main, time) = (each(|cycle| cycle.main_us), each(|cycle| cycle.ms_per_gib));
        figures.at_most(&format!("unload_{name}_main_us"), median(&main), 200.0);
        figures.print(&format!("unload_{name}_main_worst_us"), worst(&main));
        figures.print(&format!("unload_{name}_ms_per_gib"), median(&time));
        let returned = quantile(&each(|cycle| cycle.returned), 0.0);
        figures.at_least(&format!("unload_{name}_returned_ratio"), returned, 0.99);
    }
    Ok(figures.finish())
}

/// One unload.
struct Unload {
    main_us: f64,
    ms_per_gib: f64,
    returned: f64,
}

fn come_and_go(folder: &Folder) -> Vec<Unload> {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, settings(), ModelPlugin::<Stack>::default()));
    watch_main_thread(&mut app);
    app.finish();
    app.cleanup();
    (0..CYCLES).map(|_| cycle(&mut app, folder)).collect()
}

fn cycle(app: &mut App, folder: &Folder) -> Unload {
    manager(app).load(folder.path().to_path_buf());
    run_until_state::<Stack>(app, ModelState::Loaded);
    let claimed = manager(app).memory as f64;
    let before = resident();
    *app.world_mut().resource_mut::<OnMainThread>() = OnMainThread::default();
    let begun = Instant::now();
    manager(app).unload();
    while manager(app).current_state != ModelState::Idle {
        let frame = Instant::now();
        app.update();
        thread::sleep(FRAME.saturating_sub(frame.elapsed()));
    }
    Unload {
        ms_per_gib: ms(begun.elapsed()) * GIB as f64 / claimed,
        main_us: us(app.world().resource::<OnMainThread>().total),
        returned: (before as f64 - resident() as f64) / claimed,
    }
}

fn manager(app: &mut App) -> Mut<'_, ModelManager<Stack>> {
    app.world_mut().resource_mut()
}
