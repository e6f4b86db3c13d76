//! A game without a picture: what its frames work, and how long they take.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use bevy::{
    prelude::*,
    tasks::{AsyncComputeTaskPool, ComputeTaskPool},
};
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::figures::ms;

/// A frame at 60 Hz.
pub const FRAME: Duration = Duration::from_micros(16_667);

/// What every thread allocates, touches and frees in each frame, in blocks of [`BLOCK`] bytes.
const CHURN: usize = 8 << 20;
const BLOCK: usize = 4096;

/// The work of a frame.
#[derive(Resource, Clone, Copy)]
pub struct Game {
    /// Rounds on one thread.
    alone: u64,
    /// Rounds that are spread over the compute pool.
    spread: u64,
}

impl Game {
    /// A game with so many milliseconds of systems on one thread, and so many spread over the compute pool.
    pub fn new(rounds_per_ms: u64, alone_ms: f64, spread_ms: f64) -> Self {
        let rounds = |ms: f64| (rounds_per_ms as f64 * ms) as u64;
        Self {
            alone: rounds(alone_ms),
            spread: rounds(spread_ms),
        }
    }

    /// An app that does nothing.
    pub const IDLE: Self = Self {
        alone: 0,
        spread: 0,
    };

    fn is_idle(&self) -> bool {
        self.alone == 0
    }
}

/// How long light tasks of a game have waited for a pool, in milliseconds.
#[derive(Resource)]
pub struct PoolWaits {
    tell: Sender<f64>,
    told: Receiver<f64>,
}

impl PoolWaits {
    /// Takes what has been measured so far.
    pub fn take(&self) -> Vec<f64> {
        self.told.try_iter().collect()
    }
}

/// Adds the work of a game.
pub fn add_game(app: &mut App, game: Game) {
    let (tell, told) = unbounded();
    app.insert_resource(game)
        .insert_resource(PoolWaits { tell, told })
        .add_systems(Update, (ask_pool, work_alone, work_together).chain());
}

/// A frame at 60 Hz: returns the milliseconds of its work. The pacing is outside of it.
pub fn paced_frame(app: &mut App) -> f64 {
    let begun = Instant::now();
    app.update();
    let work = begun.elapsed();
    thread::sleep(FRAME.saturating_sub(work));
    ms(work)
}

fn ask_pool(waits: Res<PoolWaits>) {
    let (tell, asked) = (waits.tell.clone(), Instant::now());
    let answer = async move { _ = tell.send(ms(asked.elapsed())) };
    AsyncComputeTaskPool::get().spawn(answer).detach();
}

fn work_alone(game: Res<Game>) {
    compute(game.alone);
    if !game.is_idle() {
        churn();
    }
}

fn work_together(game: Res<Game>) {
    if game.is_idle() {
        return;
    }
    let pool = ComputeTaskPool::get();
    let parts = pool.thread_num() + 1;
    let rounds = game.spread / parts as u64;
    pool.scope(|scope| {
        for _ in 0..parts {
            scope.spawn(async move {
                compute(rounds);
                churn();
            });
        }
    });
}

/// Shows a stall of the allocator.
fn churn() {
    let blocks: Vec<_> = (0..CHURN / BLOCK).map(|i| vec![i as u8; BLOCK]).collect();
    black_box(blocks);
}

/// Computes for a while.
pub fn compute(rounds: u64) {
    let next = |number: u64, round| {
        number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(round)
    };
    black_box((0..black_box(rounds)).fold(1, next));
}

/// How much this machine computes when nothing else happens.
pub fn rounds_per_ms() -> u64 {
    let rounds = 10_000_000;
    let fastest = (0..20).map(|_| {
        let begun = Instant::now();
        compute(rounds);
        begun.elapsed()
    });
    (rounds as f64 / ms(fastest.min().expect("there are some"))) as u64
}
