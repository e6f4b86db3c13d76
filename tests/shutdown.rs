//! However an app ends, its models and its threads end before it does.
//!
//! Each test runs this program again as a child: an app that ends in one particular way, and then says
//! which threads of ours are left (they are named `candle-`), and whether every model was dropped.

mod support {
    pub mod child;
}

use std::{
    io::Write,
    process::{Child, Command, ExitCode},
    time::{Duration, Instant},
};

use bevy::{
    app::{AppExit, ScheduleRunnerPlugin, TerminalCtrlCHandlerPlugin},
    ecs::schedule::ScheduleLabel,
    log::LogPlugin,
    prelude::*,
};
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeRequest, Gate, Place},
};
use libtest_mimic::{Arguments, Failed, Trial};

/// Tells a child what to do: `what/how`.
const CHILD: &str = "BEVY_CANDLE_SHUTDOWN_CHILD";

/// What is in flight when the app ends.
const WORK: [&str; 6] = ["nothing", "reading", "building", "model", "job", "busy"];

/// How the app ends.
const ENDS: [&str; 8] = [
    "First",
    "PreUpdate",
    "Update",
    "PostUpdate",
    "Last",
    "observer",
    "drop",
    "sigint",
];

/// Far more than an end takes, far less than a hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    if let Ok(task) = std::env::var(CHILD) {
        return child(&task);
    }
    let arguments = Arguments::from_args();
    let cases = WORK
        .iter()
        .flat_map(|work| ENDS.iter().map(move |end| (*work, *end)));
    let cases = cases.filter(|(_, end)| cfg!(unix) || *end != "sigint");
    let trials = cases
        .map(|(work, end)| {
            Trial::test(format!("{work}_in_flight_ends_with_{end}"), move || {
                parent(work, end)
            })
        })
        .chain([Trial::test(
            "a_stuck_model_is_left_behind_after_the_timeout",
            stuck,
        )])
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a child and reads what it says.
fn parent(work: &str, end: &str) -> Result<(), Failed> {
    let said = run_child(&format!("{work}/{end}"))?;
    let expected = ["threads left: []", "models left: 0"];
    if expected
        .iter()
        .all(|line| said.lines().any(|said| said == *line))
    {
        Ok(())
    } else {
        Err(format!("the child said:\n{said}").into())
    }
}

/// A device thread that never comes back does not hold the app for longer than its time-out, and a
/// warning names the pipeline.
fn stuck() -> Result<(), Failed> {
    let since = Instant::now();
    let said = run_child("stuck/Update")?;
    let took = since.elapsed();
    let is_named = said.contains("Fake") && said.contains("was not released in time");
    let is_left = said.contains("candle-cpu-") || cfg!(not(target_os = "linux"));
    if took < PATIENCE && is_named && is_left {
        Ok(())
    } else {
        Err(format!("after {took:?}:\n{said}").into())
    }
}

fn run_child(task: &str) -> Result<String, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(CHILD, task).env("NO_COLOR", "1");
    let interrupt = |child: &Child, line: &str| {
        if line == "ready" && task.ends_with("sigint") {
            let id = child.id().to_string();
            Command::new("kill").args(["-INT", &id]).status()?;
        }
        Ok(())
    };
    let (_, said) = support::child::run_child(&mut command, PATIENCE, interrupt)?;
    Ok(said)
}

/// What the child's systems share.
#[derive(Resource, Clone)]
struct Task {
    work: String,
    end: String,
    model: FakeModel,
    gate: Gate,
    is_ready: bool,
}

/// What runs in the background of a shell ignores SIGINT, and its children do, too.
#[cfg(unix)]
fn accept_sigint() {
    #[expect(unsafe_code, reason = "the standard library cannot reset a signal")]
    // SAFETY: the default action is set before the first thread is started and before any handler is.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
    }
}

#[cfg(not(unix))]
fn accept_sigint() {}

fn child(task: &str) -> ExitCode {
    accept_sigint();
    let (work, end) = task.split_once('/').expect("what/how");
    let gate = Gate::closed();
    let model = FakeModel::new("model");
    let model = match work {
        "reading" => model.tensors(64, 1 << 20),
        "building" => model.gate(Place::Build, &gate),
        "stuck" => model.gate(Place::Drop, &gate),
        "busy" => model,
        _ => model.gate_steps(&gate),
    };
    let task = Task {
        work: work.into(),
        end: end.into(),
        model: model.clone(),
        gate,
        is_ready: false,
    };
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(Duration::from_micros(500))),
        TerminalCtrlCHandlerPlugin,
        LogPlugin::default(),
        ModelPlugin::<Fake>::default(),
        CandlePlugin {
            shutdown_timeout: timeout(work),
            ..default()
        },
    ))
    .insert_resource(task)
    .add_systems(Startup, start)
    .add_systems(PreUpdate, get_ready)
    .add_observer(|_: On<Enough>, mut exit: MessageWriter<AppExit>| {
        _ = exit.write(AppExit::Success);
    });
    end_in(&mut app, First, "First");
    end_in(&mut app, PreUpdate, "PreUpdate");
    end_in(&mut app, Update, "Update");
    end_in(&mut app, PostUpdate, "PostUpdate");
    end_in(&mut app, Last, "Last");
    app.add_systems(Update, |mut commands: Commands, task: Res<Task>| {
        if task.is_ready && task.end == "observer" {
            commands.trigger(Enough);
        }
    });
    if end == "drop" {
        app.finish();
        while !app.world().resource::<Task>().is_ready {
            app.update();
        }
        drop(app);
    } else {
        app.run();
    }
    report(&model)
}

#[derive(Event)]
struct Enough;

fn timeout(work: &str) -> Duration {
    if work == "stuck" {
        Duration::from_millis(300)
    } else {
        Duration::from_secs(10)
    }
}

fn start(mut manager: ResMut<ModelManager<Fake>>, task: Res<Task>) {
    if task.work != "nothing" {
        manager.load(task.model.source());
    }
}

/// Waits until the work is in flight.
fn get_ready(
    manager: Res<ModelManager<Fake>>,
    mut task: ResMut<Task>,
    mut commands: Commands,
    jobs: Query<&Infer<Fake>>,
) {
    let loaded = manager.current_state.is_loaded();
    let is_ready = match task.work.as_str() {
        "nothing" => true,
        "reading" => manager.progress.done > 0,
        "model" | "stuck" => loaded,
        "busy" => task
            .model
            .log()
            .iter()
            .any(|event| event.place == Place::Infer),
        _ => task.gate.waiting() == 1,
    };
    let steps = match task.work.as_str() {
        "job" => 3,
        // It never comes to a gate, and never to its end.
        "busy" => u32::MAX,
        _ => 0,
    };
    if steps > 0 && loaded && jobs.is_empty() {
        commands.spawn(Infer::<Fake>::new(FakeRequest { steps, ..default() }));
        commands.spawn(Infer::<Fake>::new(FakeRequest { steps, ..default() }));
    }
    if is_ready && !task.is_ready {
        task.is_ready = true;
        say("ready");
    }
}

fn end_in(app: &mut App, schedule: impl ScheduleLabel, name: &'static str) {
    app.add_systems(
        schedule,
        move |task: Res<Task>, mut exit: MessageWriter<AppExit>| {
            if task.is_ready && task.end == name {
                exit.write(AppExit::Success);
            }
        },
    );
}

/// Says what outlived the app.
fn report(model: &FakeModel) -> ExitCode {
    say(&format!("threads left: {:?}", our_threads()));
    let count = |place| {
        model
            .log()
            .iter()
            .filter(|event| event.place == place)
            .count()
    };
    say(&format!(
        "models left: {}",
        count(Place::Build) - count(Place::Drop)
    ));
    // What is stuck must not hold the process.
    std::process::exit(0)
}

#[cfg(target_os = "linux")]
fn our_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists threads");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    let mut names: Vec<_> = tasks
        .filter_map(name)
        .map(|name| name.trim().to_owned())
        .collect();
    assert!(!names.is_empty(), "this thread is in the list");
    names.retain(|name| name.starts_with("candle"));
    names.sort();
    names
}

/// Where threads cannot be listed, joining them is what is tested.
#[cfg(not(target_os = "linux"))]
fn our_threads() -> Vec<String> {
    Vec::new()
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("the parent listens");
}
