//! One pipeline, several managers: each has models, settings, jobs and a state of its own, under one budget.

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, FakeOutput, FakeRequest, run_until, run_until_state},
};

struct Enemies;
struct Friends;
type EnemySprites = Slot<Fake, Enemies>;
type FriendSprites = Slot<Fake, Friends>;

#[derive(Resource, Default)]
struct Outputs(Vec<FakeOutput>);

fn add<P: Pipeline<Output = FakeOutput>>(app: &mut App) {
    app.add_plugins(ModelPlugin::<P>::default()).add_observer(
        |mut done: On<Inferred<P>>, mut outputs: ResMut<Outputs>| {
            outputs.0.push(done.take().expect("an output"));
        },
    );
}

#[test]
fn slots_of_one_pipeline_share_nothing_but_the_budget() {
    let mut app = App::new();
    app.add_plugins((
        MinimalPlugins,
        CandlePlugin {
            memory_budget: Some(9 << 20),
            ..default()
        },
    ))
    .init_resource::<Outputs>();
    add::<Fake>(&mut app);
    add::<EnemySprites>(&mut app);
    add::<FriendSprites>(&mut app);
    let world = app.world_mut();
    let mut enemies = world.resource_mut::<ModelManager<EnemySprites>>();
    enemies.load(FakeModel::new("enemies").tensors(3, 1 << 18).source());
    enemies.settings_mut().value = 1;
    let mut friends = world.resource_mut::<ModelManager<FriendSprites>>();
    friends.load(FakeModel::new("friends").tensors(5, 1 << 18).source());
    friends.settings_mut().value = 2;
    run_until_state::<EnemySprites>(&mut app, ModelState::Loaded);
    run_until_state::<FriendSprites>(&mut app, ModelState::Loaded);
    let world = app.world_mut();
    let state = world.resource::<ModelManager<Fake>>().current_state;
    assert_eq!(state, ModelState::Idle, "the plain kind is another one");
    let memory = world.resource::<ResourceManager>();
    assert_eq!(memory.in_use(), 8 << 20);
    let slots = [
        world.resource::<ModelManager<Fake>>().slot(),
        world.resource::<ModelManager<EnemySprites>>().slot(),
        world.resource::<ModelManager<FriendSprites>>().slot(),
    ];
    let listed: Vec<_> = memory.models().iter().map(|model| model.slot).collect();
    assert_eq!(listed, slots[1..]);
    let request = FakeRequest::default();
    world.spawn(Infer::<EnemySprites>::new(request));
    world.spawn(Infer::<FriendSprites>::new(request));
    run_until(&mut app, "both jobs", |world| {
        world.resource::<Outputs>().0.len() == 2
    });
    let outputs = &app.world().resource::<Outputs>().0;
    let mut seen: Vec<_> = outputs
        .iter()
        .map(|output| (output.settings.value, output.tensors))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [(1, 3), (2, 5)]);
}
