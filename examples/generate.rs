//! Makes pixel-art items with the shipped model, without a window or a GPU.
//!
//! Loads `assets/models/sprites` with a progress bar, makes a few sprites of each class, writes them to a
//! contact sheet, unloads, and prints each transition with its time and what the release gave back.
//!
//! ```text
//! cargo run --release --example generate
//! cargo run --release --example generate -- --class 2 --count 6 --steps 50 --sampler ddpm --seed 1
//! ```

use std::{path::PathBuf, process::ExitCode, time::Instant};

use bevy::{app::ScheduleRunnerPlugin, image::Image, prelude::*};
use bevy_candle::prelude::*;
use clap::{Parser, ValueEnum};
use image::{Rgba, RgbaImage, imageops};
use indicatif::{ProgressBar, ProgressStyle};

/// The classes of the shipped model, in their order.
const CLASSES: [&str; 8] = [
    "sword", "shield", "potion", "gem", "key", "heart", "mushroom", "critter",
];

/// How many times larger than the sprites the sheet is.
const SCALE: u32 = 3;

/// Makes sprites with a diffusion model, headless.
#[derive(Parser, Resource, Clone)]
struct Options {
    /// Make only this class: 0 to 7, or its name (all classes)
    #[arg(long, value_parser = class)]
    class: Option<u32>,
    /// The first seed; each sprite of a class has the next one
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Steps from noise to sprite
    #[arg(long, default_value_t = 30)]
    steps: u32,
    /// How noise becomes a sprite
    #[arg(long, value_enum, default_value_t = SamplerName::Ddim)]
    sampler: SamplerName,
    /// Sprites of each class
    #[arg(long, default_value_t = 2)]
    count: u32,
    /// The model's folder, under `assets` or absolute; it has to have the same classes
    #[arg(long, default_value = "models/sprites")]
    model: String,
    /// Where the sheet goes
    #[arg(long, default_value = "target/sprites.png")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum SamplerName {
    Ddim,
    Ddpm,
    Euler,
    DpmSolver,
}

/// What has been made so far, and what happened when.
#[derive(Resource)]
struct Work {
    started: Instant,
    bar: ProgressBar,
    sheet: Vec<(u32, Option<Image>)>,
    ended: usize,
    failure: Option<String>,
}

/// The place of a job's sprites in the sheet.
#[derive(Component)]
struct Place(usize);

fn main() -> ExitCode {
    let options = Options::parse();
    let mut app = App::new();
    app.add_plugins(MinimalPlugins.set(ScheduleRunnerPlugin::run_loop(
        std::time::Duration::from_millis(4),
    )))
    .add_plugins(ModelPlugin::<DdpmPipeline>::default())
    .insert_resource(Work::new(&options))
    .insert_resource(options)
    .add_systems(Startup, load)
    .add_systems(
        Update,
        (
            print_transitions,
            show_progress.run_if(in_state(ModelState::Loading.of::<DdpmPipeline>())),
        ),
    )
    .add_systems(OnEnter(ModelState::Loaded.of::<DdpmPipeline>()), forge)
    .add_systems(OnEnter(ModelState::Failed.of::<DdpmPipeline>()), give_up)
    .add_systems(OnExit(ModelState::Unloading.of::<DdpmPipeline>()), finish)
    .add_observer(show_step)
    .add_observer(collect);
    match app.run() {
        AppExit::Success => ExitCode::SUCCESS,
        AppExit::Error(code) => ExitCode::from(code.get()),
    }
}

impl Options {
    /// How many classes are made.
    fn classes(&self) -> usize {
        self.class.map_or(CLASSES.len(), |_| 1)
    }
}

impl Work {
    fn new(options: &Options) -> Self {
        let classes = options
            .class
            .map_or((0..CLASSES.len() as u32).collect(), |class| vec![class]);
        let places = (0..options.count).flat_map(|_| classes.iter().map(|class| (*class, None)));
        let bar = ProgressBar::new(0).with_style(style("{msg:10} {bar:40} {bytes}/{total_bytes}"));
        Self {
            started: Instant::now(),
            bar,
            sheet: places.collect(),
            ended: 0,
            failure: None,
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is written above")
}

fn load(mut manager: ResMut<ModelManager<DdpmPipeline>>, options: Res<Options>) {
    manager.settings_mut().sampler = match options.sampler {
        SamplerName::Ddim => Sampler::Ddim { eta: 0.0 },
        SamplerName::Ddpm => Sampler::Ddpm,
        SamplerName::Euler => Sampler::Euler,
        SamplerName::DpmSolver => Sampler::DpmSolverPlusPlus,
    };
    manager.load(options.model.as_str());
}

fn show_progress(manager: Res<ModelManager<DdpmPipeline>>, work: Res<Work>) {
    work.bar.set_message("loading");
    work.bar.set_length(manager.progress.total);
    work.bar.set_position(manager.progress.done);
}

fn forge(mut commands: Commands, mut work: ResMut<Work>, options: Res<Options>) {
    let jobs = work.sheet.len() as u64 * u64::from(options.steps);
    work.bar.finish_and_clear();
    work.bar = ProgressBar::new(jobs).with_style(style("{msg:10} {bar:40} step {pos}/{len}"));
    work.bar.set_message("forging");
    for (place, (class, _)) in work.sheet.iter().enumerate() {
        let seed = options.seed + (place / options.classes()) as u64;
        let request = DdpmRequest {
            class: Some(*class),
            seed,
            steps: options.steps,
            ..default()
        };
        commands.spawn((Place(place), Infer::<DdpmPipeline>::new(request)));
    }
    if work.sheet.is_empty() {
        commands
            .queue(|world: &mut World| world.resource_mut::<ModelManager<DdpmPipeline>>().unload());
    }
}

fn show_step(step: On<InferStep<DdpmPipeline>>, places: Query<&Place>, work: Res<Work>) {
    if let Ok(Place(place)) = places.get(step.entity) {
        work.bar
            .set_position(*place as u64 * u64::from(step.steps) + u64::from(step.step));
    }
}

fn collect(
    mut done: On<Inferred<DdpmPipeline>>,
    places: Query<&Place>,
    mut work: ResMut<Work>,
    mut manager: ResMut<ModelManager<DdpmPipeline>>,
) {
    let place = places.get(done.entity).map_or(0, |place| place.0);
    match done.take() {
        Ok(output) => work.sheet[place].1 = output.images().pop(),
        // Later jobs only say that the model was unloaded.
        Err(error) => _ = work.failure.get_or_insert(ErrorChain(&error).to_string()),
    }
    work.ended += 1;
    if work.failure.is_some() || work.ended == work.sheet.len() {
        manager.unload();
    }
}

fn print_transitions(
    mut transitions: MessageReader<ModelTransition<DdpmPipeline>>,
    work: Res<Work>,
) {
    for change in transitions.read() {
        let seconds = work.started.elapsed().as_secs_f64();
        let line = format!(
            "{seconds:8.3} s  {:?} -> {:?} ({:?})",
            change.from, change.to, change.reason
        );
        work.bar.suspend(|| say(&line));
    }
}

/// The model is gone, and its memory is back.
fn finish(
    manager: Res<ModelManager<DdpmPipeline>>,
    options: Res<Options>,
    mut work: ResMut<Work>,
    mut exit: MessageWriter<AppExit>,
) {
    work.bar.finish_and_clear();
    if let Some(report) = manager.last_release {
        let freed = report
            .freed
            .map_or("an unknown number of".into(), |bytes| bytes.to_string());
        say(&format!(
            "released {freed} bytes of {} claimed in {:?}",
            report.claimed, report.duration
        ));
    }
    let result = match work.failure.take() {
        Some(failure) => Err(failure),
        None => save(&work.sheet, &options),
    };
    match result {
        Ok(()) => exit.write(AppExit::Success),
        Err(reason) => {
            complain(&reason);
            exit.write(AppExit::error())
        }
    };
}

fn give_up(
    manager: Res<ModelManager<DdpmPipeline>>,
    work: Res<Work>,
    mut exit: MessageWriter<AppExit>,
) {
    work.bar.finish_and_clear();
    if let Some(error) = &manager.last_error {
        complain(&ErrorChain(&**error).to_string());
    }
    exit.write(AppExit::error());
}

/// Eight sprites a row, on a dark ground: one column for each class, where all are made.
fn save(sheet: &[(u32, Option<Image>)], options: &Options) -> Result<(), String> {
    let Some(size) = sheet
        .iter()
        .find_map(|(_, image)| image.as_ref())
        .map(Image::size)
    else {
        return Ok(());
    };
    let columns = CLASSES.len() as u32;
    let rows = (sheet.len() as u32).div_ceil(columns);
    let cell = size + 2;
    let mut page = RgbaImage::from_pixel(columns * cell.x, rows * cell.y, Rgba([46, 42, 58, 255]));
    for (place, (_, image)) in sheet.iter().enumerate() {
        let data = image
            .as_ref()
            .and_then(|image| image.data.clone())
            .unwrap_or_default();
        let Some(sprite) = RgbaImage::from_raw(size.x, size.y, data) else {
            continue;
        };
        let (x, y) = (
            place as u32 % columns * cell.x + 1,
            place as u32 / columns * cell.y + 1,
        );
        imageops::overlay(&mut page, &sprite, i64::from(x), i64::from(y));
    }
    let page = imageops::resize(
        &page,
        page.width() * SCALE,
        page.height() * SCALE,
        imageops::Nearest,
    );
    if let Some(folder) = options.out.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    page.save(&options.out)
        .map_err(|error| format!("{}: {error}", options.out.display()))?;
    say(&format!(
        "{} sprites in {}",
        sheet.len(),
        options.out.display()
    ));
    Ok(())
}

fn class(text: &str) -> Result<u32, String> {
    let by_name = CLASSES
        .iter()
        .position(|name| *name == text)
        .map(|class| class as u32);
    let by_number = text.parse().ok();
    by_number
        .or(by_name)
        .ok_or_else(|| format!("a number, or one of {}", CLASSES.join(", ")))
}

#[expect(clippy::print_stdout, reason = "a command-line tool prints")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a command-line tool prints")]
fn complain(reason: &str) {
    eprintln!("error: {reason}");
}
