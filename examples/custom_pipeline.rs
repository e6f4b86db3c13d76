//! A game's own model: a small network that tells a hundred sheep, each frame and in one batch, which
//! way to run from a wolf. Says how many are still near it after five seconds of game time.
//! `cargo run --release --example custom_pipeline`

use bevy::{log::LogPlugin, prelude::*};
use bevy_candle::candle_nn::{Linear, Module, VarBuilder, linear};
use bevy_candle::{candle::Tensor, prelude::*};

/// Two layers, each in a file of its own: from what a sheep sees to which way it runs.
struct Instincts(Linear, Linear);

impl Pipeline for Instincts {
    type Config = ();
    type Settings = ();
    type Request = Vec<[f32; 4]>; // the wolf and the grass, seen from each sheep, in metres
    type Partial = ();
    type Output = Vec<Vec<f32>>; // metres a second

    fn plan(files: &dyn ModelFiles) -> Result<Plan<()>, LoadError> {
        let plan = Plan::new(()).weights(files, "senses.safetensors")?;
        plan.weights(files, "urges.safetensors")?
            .check(|_, vb| Self::new(vb))
    }

    async fn build(_: (), vb: VarBuilder<'static>, _: &LoadSteps) -> Result<Self, LoadError> {
        Self::new(vb)
    }

    async fn infer(&self, seen: Vec<[f32; 4]>, _: Steps<Self>) -> Result<Self::Output, InferError> {
        let seen = Tensor::from_vec(seen.concat(), (seen.len(), 4), self.0.weight().device())?;
        Ok(self.1.forward(&self.0.forward(&seen)?.tanh()?)?.to_vec2()?)
    }
}

impl Instincts {
    fn new(vb: VarBuilder<'static>) -> Result<Self, LoadError> {
        let (senses, urges) = (vb.pp("senses"), vb.pp("urges"));
        Ok(Self(linear(4, 32, senses)?, linear(32, 2, urges)?))
    }
}

#[derive(Component)]
struct Sheep(Vec2);

const WOLF: Vec2 = Vec2::new(5.0, 5.0);

fn main() -> AppExit {
    App::new()
        .add_plugins((MinimalPlugins, LogPlugin::default()))
        .add_plugins(ModelPlugin::<Instincts>::default())
        .add_systems(Startup, begin)
        .add_observer(run)
        .run()
}

fn begin(mut commands: Commands, mut instincts: ResMut<ModelManager<Instincts>>) {
    instincts.load("models/instincts");
    commands.spawn_batch((0..100).map(|i| Sheep(Vec2::new((i % 10) as f32, (i / 10) as f32))));
    commands.spawn(Infer::<Instincts>::new(vec![[0.0; 4]; 100])); // waits for the model
}

fn run(
    mut done: On<Inferred<Instincts>>,
    mut flock: Query<&mut Sheep>,
    (mut frames, mut commands): (Local<u32>, Commands),
) {
    let urges = match done.take() {
        Ok(urges) => urges,
        Err(error) => {
            error!("no urges: {}", ErrorChain(&error));
            commands.write_message(AppExit::error());
            return;
        }
    };
    for (mut sheep, urge) in flock.iter_mut().zip(urges) {
        sheep.0 += Vec2::from_slice(&urge) / 60.0;
    }
    *frames += 1;
    if *frames == 300 {
        let near = flock.iter().filter(|sheep| sheep.0.distance(WOLF) < 2.0);
        info!("{} of 100 sheep stay near the wolf", near.count());
        commands.write_message(AppExit::Success);
    }
    let see = |Sheep(at): &Sheep| [WOLF.x - at.x, WOLF.y - at.y, 9.0 - at.x, 9.0 - at.y];
    let job = Infer::<Instincts>::new(flock.iter().map(see).collect());
    commands.entity(done.entity).insert(job);
}
