//! What loads, jobs, unloads and cancels do to the frames of a game.
//!
//! ```text
//! cargo bench --bench frame_time
//! ```
//!
//! A game at 60 Hz works 3 ms on one thread and 2 ms spread over the compute pool in each frame, and each of its threads
//! allocates, touches and frees 8 MiB in small blocks. A frame is the time of `app.update()`. The phases take turns, and
//! only frames that overlap what they are about count.
//!
//! The first load of each turn is apart: a virtual machine's host may have taken the memory meanwhile, and has to give it
//! back page by page. And jobs come before loads, since the host takes what those leave for seconds.
//!
//! - `frame_p99_ratio_{load,infer,unload,cancel}`: the 99th percentile to that of the game alone.
//! - `frame_worst_ms_*`, `frame_p50_ms_*`, `frame_p99_ms_*`: of each phase; `none` is the game alone.
//! - `frame_late_per_1000_*`: how many frames of a thousand took longer than the bar of 16.7 ms: phases have more frames
//!   than others, and the worst of more is worse.
//! - `frame_*_first_load`: of the first loads.
//! - `frame_*_touch`: the same for another process, with one thread of a reader's priority that touches 1 GiB of memory
//!   and frees it, again and again. Nothing of this crate runs in it: so much is the machine's.
//! - `frame_load_s_ratio`: a load of 1 GiB beside the game, to one in an app that does nothing.
//! - `frame_steps_ratio`: steps of the sprite model beside the game, to those beside an app that does nothing.
//! - `pool_wait_p99_ms`: how long a light task waits for `AsyncComputeTaskPool` meanwhile.
//! - `naive_main_*`, `naive_pool_*`: the same for a load in a system, and for a blocking load in one task of the pool.
//! - `guard_15_*`, `guard_40_*`: games whose frames take 15 ms and 40 ms by themselves, beside the sprite model.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support {
    pub mod child;
    pub mod figures;
    pub mod game;
    pub mod machine;
    pub mod phases;
    pub mod settings;
    pub mod sides;
    pub mod stack;
    pub mod weights;
}

use std::{io, process::ExitCode, time::Instant};

use thread_priority::{ThreadPriority, set_current_thread_priority};

use support::{
    child::{self, Beside},
    figures::{Figures, median, quantile, worst},
    game::{FRAME, Game, paced_frame, rounds_per_ms},
    machine,
    phases::Stage,
    weights::{Folder, Set},
};

/// Frames of each phase, and in how many turns they come.
const FRAMES: usize = 1_000;
const TURNS: usize = 4;

/// The first frames of a process, which count nowhere.
const WARM_UP: usize = 60;

/// Loads in a system: each is one frame, and a long one.
const NAIVE_FRAMES: usize = 20;

/// Frames of the games with little time, and with none.
const GUARDED: usize = 1_000;

/// A frame at 60 Hz, in milliseconds.
const LATE: f64 = 16.7;

fn main() -> io::Result<ExitCode> {
    if child::asked().is_some() {
        touch_for_ever();
    }
    let mut figures = Figures::default();
    let rounds = rounds_per_ms();
    let folder = Folder::make(Set::Many)?;
    let mut idle = Stage::new(Game::IDLE, &folder);
    let (idle_load, idle_steps) = (idle.seconds_per_load(5), idle.steps_per_second(5 * 60));
    drop(idle);
    let mut game = Stage::new(Game::new(rounds, 3.0, 2.0), &folder);
    let seen = play(&mut game, &folder)?;
    print_phases(&mut figures, &seen);
    let waits = quantile(&seen.pool_waits, 0.99);
    figures.at_most("pool_wait_p99_ms", waits, 5.0);
    figures.print("frame_load_s_idle", idle_load);
    figures.print("frame_load_s", median(&game.load_seconds));
    let ratio = median(&game.load_seconds) / idle_load;
    figures.at_most("frame_load_s_ratio", ratio, 1.5);
    figures.print("frame_steps_per_s", seen.steps_per_second);
    let ratio = seen.steps_per_second / idle_steps;
    figures.at_least("frame_steps_ratio", ratio, 0.5);
    naive(&mut figures, &mut game);
    drop(game);
    guarded(&mut figures, rounds, &folder);
    Ok(figures.finish())
}

/// The frames of each phase, to those of the game alone.
fn print_phases(figures: &mut Figures, seen: &Seen) {
    let none = quantile(&seen.none, 0.99);
    print(figures, "none", &seen.none);
    let phases = [
        ("load", &seen.load),
        ("infer", &seen.infer),
        ("unload", &seen.unload),
        ("cancel", &seen.cancel),
    ];
    for (name, frames) in phases {
        print(figures, name, frames);
        let bar = format!("frame_worst_ms_{name}");
        figures.at_most(&bar, worst(frames), LATE);
        let ratio = quantile(frames, 0.99) / none;
        figures.at_most(&format!("frame_p99_ratio_{name}"), ratio, 1.2);
    }
    print(figures, "first_load", &seen.first_load);
    figures.print("frame_worst_ms_first_load", worst(&seen.first_load));
    print(figures, "touch", &seen.touch);
    figures.print("frame_worst_ms_touch", worst(&seen.touch));
    let ratio = quantile(&seen.touch, 0.99) / none;
    figures.print("frame_p99_ratio_touch", ratio);
}

/// The frames that overlapped each phase, in milliseconds.
#[derive(Default)]
struct Seen {
    none: Vec<f64>,
    /// Of the first load of each turn.
    first_load: Vec<f64>,
    load: Vec<f64>,
    unload: Vec<f64>,
    infer: Vec<f64>,
    cancel: Vec<f64>,
    touch: Vec<f64>,
    pool_waits: Vec<f64>,
    steps_per_second: f64,
}

fn play(game: &mut Stage, folder: &Folder) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let (mut steps, mut seconds) = (0, 0.0);
    // Threads that have never run, and memory that was never touched.
    game.alone(WARM_UP, &mut Vec::new());
    game.pool_waits();
    for turn in 1..=TURNS {
        let frames = FRAMES * turn / TURNS;
        game.alone(frames, &mut seen.none);
        let begun = Instant::now();
        steps += game.infer(frames, &mut seen.infer);
        seconds += begun.elapsed().as_secs_f64();
        game.come_and_go_first(&mut seen.first_load);
        game.come_and_go(frames, &mut seen.load, &mut seen.unload);
        game.cancel(frames, &mut seen.cancel);
        seen.pool_waits.extend(game.pool_waits());
        let beside = Beside::start("touch", folder.path())?;
        game.alone(frames, &mut seen.touch);
        drop(beside);
        game.pool_waits();
    }
    seen.steps_per_second = steps as f64 / seconds;
    Ok(seen)
}

/// What the other process does.
fn touch_for_ever() -> ! {
    let priority = 12.try_into().expect("the priority is below 100");
    let _ = set_current_thread_priority(ThreadPriority::Crossplatform(priority));
    loop {
        machine::touch(1 << 30);
    }
}

fn print(figures: &mut Figures, name: &str, frames: &[f64]) {
    println!("frames_{name} {}", frames.len());
    figures.print(&format!("frame_p50_ms_{name}"), median(frames));
    figures.print(&format!("frame_p99_ms_{name}"), quantile(frames, 0.99));
    let late = frames.iter().filter(|&&frame| frame > LATE).count();
    let of_a_thousand = 1000.0 * late as f64 / frames.len() as f64;
    figures.print(&format!("frame_late_per_1000_{name}"), of_a_thousand);
    if name == "none" {
        figures.print("frame_worst_ms_none", worst(frames));
    }
}

/// What games do without this crate.
fn naive(figures: &mut Figures, game: &mut Stage) {
    game.pool_waits();
    let frames = game.load_in_system(NAIVE_FRAMES);
    figures.print("naive_main_p50_ms", median(&frames));
    figures.print("naive_main_worst_ms", worst(&frames));
    let frames = game.load_in_pool(FRAMES / TURNS);
    figures.print("naive_pool_p50_ms", median(&frames));
    figures.print("naive_pool_p99_ms", quantile(&frames, 0.99));
    figures.print("naive_pool_worst_ms", worst(&frames));
    let waits = quantile(&game.pool_waits(), 0.99);
    figures.print("naive_pool_wait_p99_ms", waits);
}

/// Games that have little time to spare, and none.
fn guarded(figures: &mut Figures, rounds: u64, folder: &Folder) {
    for (name, wanted) in [("15", 15.0), ("40", 40.0)] {
        let mut game = Stage::new(game_of(rounds, wanted), folder);
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        game.alone(100, &mut alone);
        figures.print(&format!("guard_{name}_alone_p50_ms"), median(&alone));
        let alone_p99 = quantile(&alone, 0.99);
        figures.print(&format!("guard_{name}_alone_p99_ms"), alone_p99);
        let begun = Instant::now();
        let steps = game.infer(GUARDED, &mut beside) as f64;
        let per_second = steps / begun.elapsed().as_secs_f64();
        figures.print(&format!("guard_{name}_p50_ms"), median(&beside));
        let p99 = quantile(&beside, 0.99);
        if wanted < 16.0 {
            figures.at_most(&format!("guard_{name}_p99_ms"), p99, 16.7);
        } else {
            figures.print(&format!("guard_{name}_p99_ms"), p99);
        }
        figures.at_least(&format!("guard_{name}_steps_per_s"), per_second, 4.0);
    }
}

/// A game whose frames take so many milliseconds, what it allocates included.
fn game_of(rounds: u64, wanted: f64) -> Game {
    let mut alone = wanted - 2.0;
    for _ in 0..3 {
        let mut app = support::phases::game_app(Game::new(rounds, alone, 2.0));
        let frames: Vec<_> = (0..60).map(|_| paced_frame(&mut app)).collect();
        alone = (alone + wanted - median(&frames)).max(0.0);
    }
    println!(
        "guard_frame_ms {wanted} of {:.1}",
        FRAME.as_secs_f64() * 1e3
    );
    Game::new(rounds, alone, 2.0)
}
