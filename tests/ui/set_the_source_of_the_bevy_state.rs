use bevy::prelude::*;
use bevy_candle::prelude::*;

type Source = <StateOf<DdpmPipeline> as ComputedStates>::SourceStates;

fn forge_the_state(mut next: ResMut<NextState<Source>>) {
    next.set(Source::new(ModelState::Loaded));
}

fn main() {}
