//! Three models, and room for two: who is loaded, parked and evicted, as a table over time.
//!
//! Items, portraits and tiles are three managers of the same kind of pipeline, each with its own copy of the
//! shipped model. A script asks for models and pictures; each row of the table is something that happened,
//! in megabytes of 1,000,000 bytes. Things to look for:
//!
//! - the third model evicts the one that was not used for the longest time, and a job brings that back;
//! - items keep their previous model parked: going back to it takes four frames and no read;
//! - what is in use stays within the budget, jobs included, and comes back in the end.
//!
//! ```text
//! cargo run --release --example hot_swap
//! ```

#![expect(clippy::print_stdout, reason = "the table is what the example is for")]

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    time::Duration,
};

use bevy::{app::ScheduleRunnerPlugin, prelude::*};
use bevy_candle::{Slot, SlotId, Standing, candle::DType, prelude::*};

struct ForItems;
struct ForPortraits;
struct ForTiles;

type Items = Slot<DdpmPipeline, ForItems>;
type Portraits = Slot<DdpmPipeline, ForPortraits>;
type Tiles = Slot<DdpmPipeline, ForTiles>;

/// Two models of 7.2 MB and a job of 5.5 MB fit, three models do not.
const BUDGET: u64 = 21_000_000;

/// The script: what is asked, and how.
type Request = (&'static str, fn(&mut World));

const SCRIPT: [Request; 10] = [
    ("load items", |world| load::<Items>(world, DType::F32)),
    ("load portraits", |world| {
        load::<Portraits>(world, DType::F32);
    }),
    ("a picture of an item", picture::<Items>),
    ("load tiles", |world| load::<Tiles>(world, DType::F32)),
    ("a portrait", picture::<Portraits>),
    ("another item", picture::<Items>),
    ("load items in half floats", |world| {
        load::<Items>(world, DType::F16);
    }),
    ("load items as before", |world| {
        load::<Items>(world, DType::F32);
    }),
    ("two pictures at once", |world| {
        picture::<Tiles>(world);
        picture::<Items>(world);
    }),
    ("unload everything", |world| {
        world.resource_mut::<ModelManager<Items>>().unload();
        world.resource_mut::<ModelManager<Portraits>>().unload();
        world.resource_mut::<ModelManager<Tiles>>().unload();
    }),
];

fn main() -> AppExit {
    let frame = ScheduleRunnerPlugin::run_loop(Duration::from_millis(4));
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins.set(frame),
        CandlePlugin {
            memory_budget: Some(BUDGET),
            // With more, a job needs more memory.
            threads: Some(NonZeroUsize::MIN),
            ..default()
        },
    ))
    .insert_resource(Script(SCRIPT.into()))
    .init_resource::<Names>();
    add::<Items>(&mut app, 1);
    add::<Portraits>(&mut app, 0);
    add::<Tiles>(&mut app, 0);
    app.add_systems(Startup, print_head)
        .add_systems(Update, next_request)
        .run()
}

/// Adds one manager, and rows for what happens to it.
fn add<P: Picture>(app: &mut App, keep_parked: usize) {
    app.add_plugins(ModelPlugin::<P> {
        keep_parked,
        ..default()
    })
    .add_systems(PostUpdate, print_transitions::<P>)
    .add_observer(print_end::<P>);
    let slot = app.world().resource::<ModelManager<P>>().slot();
    app.world_mut()
        .resource_mut::<Names>()
        .0
        .insert(slot, P::NAME);
}

/// The three kinds, as the script and the table see them.
trait Picture: Pipeline<Request = DdpmRequest, Output = DdpmOutput> {
    const NAME: &'static str;
}

impl Picture for Items {
    const NAME: &'static str = "items";
}

impl Picture for Portraits {
    const NAME: &'static str = "portraits";
}

impl Picture for Tiles {
    const NAME: &'static str = "tiles";
}

fn load<P: Picture>(world: &mut World, dtype: DType) {
    let source = ModelSource::from("models/sprites").dtype(dtype);
    world.resource_mut::<ModelManager<P>>().load(source);
}

fn picture<P: Picture>(world: &mut World) {
    let request = DdpmRequest {
        class: Some(3),
        steps: 3,
        ..default()
    };
    world.spawn((Infer::<P>::new(request), Job));
}

/// Marks what the script waits for.
#[derive(Component)]
struct Job;

#[derive(Resource)]
struct Script(VecDeque<Request>);

/// What the managers are called in the table.
#[derive(Resource, Default)]
struct Names(HashMap<SlotId, &'static str>);

/// Asks for the next thing when the last one is done.
fn next_request(world: &mut World, mut quiet: Local<u32>) {
    let busy = is_busy::<Items>(world)
        || is_busy::<Portraits>(world)
        || is_busy::<Tiles>(world)
        || world.query::<&Job>().iter(world).next().is_some();
    // A request shows a frame later.
    *quiet = if busy { 0 } else { *quiet + 1 };
    if *quiet < 3 {
        return;
    }
    *quiet = 0;
    match world.resource_mut::<Script>().0.pop_front() {
        Some((name, ask)) => {
            row(world, "game", name);
            ask(world);
        }
        None => {
            world.write_message(AppExit::Success);
        }
    }
}

fn is_busy<P: Picture>(world: &World) -> bool {
    world.resource::<ModelManager<P>>().current_state.is_busy()
}

fn print_transitions<P: Picture>(
    mut transitions: MessageReader<ModelTransition<P>>,
    mut commands: Commands,
) {
    for change in transitions.read() {
        let text = format!("{:?} ({:?})", change.to, change.reason);
        commands.queue(move |world: &mut World| row(world, P::NAME, &text));
    }
}

fn print_end<P: Picture>(mut done: On<Inferred<P>>, mut commands: Commands) {
    let text = match done.take() {
        Ok(output) => format!("a picture of {}", output.images()[0].size()),
        Err(error) => ErrorChain(&error).to_string(),
    };
    commands.entity(done.entity).despawn();
    commands.queue(move |world: &mut World| row(world, P::NAME, &text));
}

fn print_head() {
    println!(
        "{:>7}  {:<10} {:<28} {:>6} {:>6} {:>6}  models",
        "ms", "who", "what", "in use", "peak", "budget"
    );
}

fn row(world: &mut World, who: &str, what: &str) {
    let time = world.resource::<Time<Real>>().elapsed().as_millis();
    let memory = world.resource::<ResourceManager>();
    let peak = memory.devices().first().map_or(0, |device| device.peak);
    println!(
        "{time:>7}  {who:<10} {what:<28} {:>6} {:>6} {:>6}  {}",
        megabytes(memory.in_use()),
        megabytes(peak),
        megabytes(BUDGET),
        models(memory, world.resource::<Names>()).join(", ")
    );
}

/// What is in memory, and how it stands.
fn models(memory: &ResourceManager, names: &Names) -> Vec<String> {
    let models = memory.models().iter();
    let shown = models.map(|model| {
        let (name, bytes) = (names.0[&model.slot], megabytes(model.bytes));
        match model.standing {
            Standing::Loaded => format!("{name} {bytes}"),
            Standing::Parked => format!("[{name} {bytes}, parked]"),
            Standing::Loading => format!("({name} {bytes}, loading)"),
            _ => format!("({name} {bytes}, leaving)"),
        }
    });
    shown.collect()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
