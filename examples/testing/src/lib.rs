//! A smithy that makes a sword when its model is ready. Its tests need neither weights nor time.

use bevy::prelude::*;
use bevy_candle::prelude::*;

/// Swords made, and reasons why there are none.
#[derive(Resource, Default)]
pub struct Smithy {
    pub swords: u32,
    pub excuses: Vec<String>,
}

/// Marks the entity whose job is a sword.
#[derive(Component)]
pub struct Anvil;

/// Forges one sword as soon as a model of the kind `P` is there. Generic, so that a test can bring a
/// fake one.
pub struct SmithyPlugin<P: Pipeline<Request: Default>>(std::marker::PhantomData<fn() -> P>);

impl<P: Pipeline<Request: Default>> Default for SmithyPlugin<P> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<P: Pipeline<Request: Default>> Plugin for SmithyPlugin<P> {
    fn build(&self, app: &mut App) {
        app.init_resource::<Smithy>()
            .add_plugins(ModelPlugin::<P>::default())
            .add_systems(OnEnter(ModelState::Loaded.of::<P>()), forge::<P>)
            .add_systems(OnEnter(ModelState::Failed.of::<P>()), apologise::<P>)
            .add_observer(quench::<P>);
    }
}

fn forge<P: Pipeline<Request: Default>>(mut commands: Commands) {
    commands.spawn((Anvil, Infer::<P>::new(P::Request::default())));
}

fn quench<P: Pipeline>(mut done: On<Inferred<P>>, mut smithy: ResMut<Smithy>) {
    match done.take() {
        Ok(_) => smithy.swords += 1,
        Err(error) => smithy.excuses.push(ErrorChain(&error).to_string()),
    }
}

fn apologise<P: Pipeline>(manager: Res<ModelManager<P>>, mut smithy: ResMut<Smithy>) {
    let error = manager.last_error.as_deref();
    let reason = error.map(|error| ErrorChain(error).to_string());
    smithy.excuses.extend(reason);
}
