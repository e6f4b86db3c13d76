//! A card whose driver has given it up is shown as such and not tried again, however that came out; the CPU goes on.
//!
//! The card is lost to the process: each test runs this program again as a child.

mod support {
    pub mod card;
    pub mod child;
}

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, run_until, run_until_state},
};
use libtest_mimic::{Arguments, Failed, Trial};
use support::{card::*, child};

/// Tells a child what to do.
const CHILD: &str = "BEVY_CANDLE_BROKEN_CHILD";

/// Far more than a story takes: a lost card may not answer at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happens, by its name.
const STORIES: [(&str, fn(&mut App)); 4] = [
    ("a_job_that_fails_says_so", a_job_that_fails),
    ("a_job_that_panics_is_looked_after", a_job_that_panics),
    ("an_unload_that_finds_out_fails", an_unload_that_finds_out),
    ("a_load_that_finds_out_fails", a_load_that_finds_out),
];

/// A second manager of the same kind of models.
struct Second;
type Other = Slot<Card, Second>;

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CHILD) {
        let story = STORIES.iter().find(|(known, _)| *known == name);
        tell(story.expect("a story").1);
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let trial = |name: &'static str| Trial::test(name, move || run_child(name));
    let trials = STORIES.map(|(name, _)| trial(name)).into();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run_child(name: &str) -> Result<(), Failed> {
    if !has_card() {
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    let (status, said) = child::run_child(command.env(CHILD, name), PATIENCE, |_, _| Ok(()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}: {said}").into())
}

/// One model on the card, another on the CPU; then the story, and what is the same after each.
fn tell(story: fn(&mut App)) {
    let mut app = app(None);
    app.add_plugins((
        ModelPlugin::<Fake> {
            device: Some(DeviceChoice::Cpu),
            ..default()
        },
        ModelPlugin::<Other>::default(),
    ));
    load::<Fake>(&mut app, FakeModel::new("on the CPU").source());
    load_and_wait(&mut app, source("on the card", &[1 << 20]));
    story(&mut app);
    run_until_state::<Card>(&mut app, ModelState::Failed);
    assert_unusable::<Card>(&mut app);
    not_tried_again(&mut app);
    run_until_state::<Fake>(&mut app, ModelState::Loaded);
    run::<Fake>(&mut app, FakeRequest::default()).expect("the CPU works");
}

fn a_job_that_fails(app: &mut App) {
    let [breaks, queued] = [Ask::Break, Ask::Values].map(|ask| ask_for::<Card>(app, ask));
    assert_told(&answer::<Card>(app, breaks));
    assert_told(&answer::<Card>(app, queued));
}

fn a_job_that_panics(app: &mut App) {
    let [breaks, queued] = [Ask::BreakAndPanic, Ask::Values].map(|ask| ask_for::<Card>(app, ask));
    let end = answer::<Card>(app, breaks);
    assert!(
        matches!(&end, Err(InferError::Panicked(message)) if message.starts_with("on purpose")),
        "{end:?}"
    );
    assert_told(&answer::<Card>(app, queued));
}

/// The job ends with why its model is gone.
#[track_caller]
fn assert_told(end: &Result<Vec<Vec<f32>>, InferError>) {
    let Err(InferError::Failed(source)) = end else {
        panic!("{end:?}");
    };
    let source = source.downcast_ref::<LoadError>();
    assert!(
        matches!(source, Some(LoadError::DeviceUnusable { .. })),
        "{end:?}"
    );
}

fn an_unload_that_finds_out(app: &mut App) {
    run::<Card>(app, Ask::BreakUnseen).expect("it does not look");
    app.world_mut()
        .resource_mut::<ModelManager<Card>>()
        .unload();
    run_until_state::<Card>(app, ModelState::Unloading);
}

fn a_load_that_finds_out(app: &mut App) {
    run::<Card>(app, Ask::BreakUnseen).expect("it does not look");
    load::<Other>(app, source("next", &[1 << 20]));
    run_until_state::<Other>(app, ModelState::Failed);
    assert_unusable::<Other>(app);
}

fn not_tried_again(app: &mut App) {
    let before = app.world().resource::<ModelManager<Card>>().generation;
    load::<Card>(app, source("another", &[1 << 20]));
    run_until(app, "the other's failure", |world| {
        let manager = world.resource::<ModelManager<Card>>();
        manager.current_state == ModelState::Failed && manager.generation > before
    });
    assert_unusable::<Card>(app);
}

#[track_caller]
fn assert_unusable<P: Pipeline>(app: &mut App) {
    app.update();
    let error = app.world().resource::<ModelManager<P>>().last_error.clone();
    let Some(LoadError::DeviceUnusable { reason, .. }) = error.as_deref() else {
        panic!("{error:?}");
    };
    let memory = app.world().resource::<ResourceManager>();
    let shown = |device: DeviceChoice| {
        let mut devices = memory.devices().iter();
        let shown = devices.find(|shown| shown.device == device);
        shown.and_then(|shown| shown.unusable.as_deref())
    };
    assert_eq!(shown(DeviceChoice::Cuda(0)), Some(reason.as_str()));
    assert_eq!(shown(DeviceChoice::Cpu), None);
}
