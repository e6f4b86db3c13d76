//! Random stories of two managers against a reference of a few lines.
//!
//! After each step only edges of the list were taken; message, state and property agree; a manager has at
//! most one load; the claimed memory is the sum over what is alive, and within the budget; each job whose
//! entity lives ends once. At the end everything is back.

mod support {
    pub mod reference;
    pub mod world;
}

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use support::{
    reference::{Request, Which},
    world::{Game, JOB, MODEL},
};

/// Stories in all: half of them with room for everything, half with room for one model.
const STORIES: u32 = 10_000;

/// One step of a story. Numbers name one of the two managers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize, Request),
    Set(usize, u32),
    Infer {
        kind: usize,
        steps: u32,
        panics: bool,
    },
    Despawn(usize),
    Replace(usize),
    /// A load ends: well, with an error or with a panic.
    FinishLoad(usize),
    /// A job takes a step.
    Advance(usize),
    Evict,
    Expire(usize),
    KeepParked(usize, usize),
}

/// What happens after a step.
#[derive(Clone, Copy, Debug)]
enum Then {
    Rest,
    /// The next step comes after so many frames, whatever the workers are doing.
    Frames(usize),
}

#[derive(Clone, Copy, Debug)]
enum End {
    RunOut,
    Exit,
    DropWorld,
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        4 => Just(Which::Good),
        3 => Just(Which::Other),
        1 => Just(Which::Fails),
        1 => Just(Which::Panics),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        5 => which().prop_map(Request::Load),
        2 => Just(Request::Reload),
        2 => Just(Request::Unload),
        2 => Just(Request::Cancel),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = 0..2_usize;
    let infer = (kind.clone(), 1..4_u32, prop::bool::weighted(0.1));
    prop_oneof![
        8 => (kind.clone(), request()).prop_map(|(kind, request)| Step::Ask(kind, request)),
        1 => (kind.clone(), any::<u32>()).prop_map(|(kind, value)| Step::Set(kind, value)),
        4 => infer.prop_map(|(kind, steps, panics)| Step::Infer { kind, steps, panics }),
        1 => any::<usize>().prop_map(Step::Despawn),
        1 => any::<usize>().prop_map(Step::Replace),
        6 => kind.clone().prop_map(Step::FinishLoad),
        4 => kind.clone().prop_map(Step::Advance),
        1 => Just(Step::Evict),
        1 => kind.clone().prop_map(Step::Expire),
        1 => (kind, 0..2_usize).prop_map(|(kind, count)| Step::KeepParked(kind, count)),
    ]
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![
        2 => Just(Then::Rest),
        1 => (0..3_usize).prop_map(Then::Frames),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::RunOut), Just(End::Exit), Just(End::DropWorld)]
}

/// Tells many stories. Those that fail are kept, and told first the next time.
fn tell(stories: u32, budget: u64) {
    let seeds = FileFailurePersistence::Direct("proptest-regressions/model_based.txt");
    let config = Config {
        cases: stories,
        failure_persistence: Some(Box::new(seeds)),
        max_shrink_iters: 500,
        source_file: Some(file!()),
        ..Config::default()
    };
    // Keeps the threads, which the apps of a process share.
    let mut keeper = Game::new(budget);
    keeper.app.finish();
    let story = (vec((step(), then()), 1..14), end());
    TestRunner::new(config)
        .run(&story, |(steps, end)| {
            let mut game = Game::new(budget);
            for (step, then) in steps {
                take(&mut game, step, budget);
                match then {
                    Then::Rest => game.rest(),
                    Then::Frames(count) => (0..count).for_each(|_| game.frame()),
                }
            }
            match end {
                End::RunOut => game.run_out(),
                End::Exit => game.exit(),
                End::DropWorld => game.drop_world(),
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn take(game: &mut Game, step: Step, budget: u64) {
    match step {
        Step::Ask(kind, request) => game.ask(kind, request),
        Step::Set(kind, value) => game.set(kind, value),
        Step::Infer {
            kind,
            steps,
            panics,
        } => game.infer(kind, steps, panics),
        Step::Despawn(job) => game.despawn(job),
        Step::Replace(job) => game.replace(job),
        Step::FinishLoad(kind) => game.finish_load(kind),
        Step::Advance(kind) => game.step(kind),
        // With room for one, models evict each other by themselves.
        Step::Evict if budget < 2 * MODEL => {}
        Step::Evict => {
            game.rest();
            game.evict(budget);
        }
        Step::Expire(kind) => {
            game.rest();
            game.expire(kind);
        }
        Step::KeepParked(kind, count) => game.keep_parked(kind, count),
    }
}

#[test]
fn two_managers_do_as_their_references_with_room_for_all() {
    tell(STORIES / 2, 8 * (MODEL + JOB));
}

#[test]
fn two_managers_do_as_their_references_with_room_for_one() {
    tell(STORIES / 2, MODEL + JOB);
}
