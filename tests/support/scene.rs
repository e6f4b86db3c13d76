//! An app whose model is held in one row of the request table.

use bevy::prelude::*;
use bevy_candle::{
    prelude::*,
    test_kit::{Fake, FakeModel, Gate, Place, Recorder, RecorderPlugin, run_until},
};

use ModelState::{Failed, Idle, Loaded, Loading, Unloading};

/// A transition as the recorder has it: from, to, and why.
pub type Edge = (ModelState, ModelState, TransitionReason);

/// The rows of the table.
#[derive(Clone, Copy, PartialEq)]
pub enum Row {
    Idle,
    Loading,
    Cancelling,
    Loaded,
    Unloading,
    Failed,
}

/// The columns of the table. `a` is the model that the row is about, `b` another one.
#[derive(Clone, Copy)]
pub enum Request {
    LoadSame,
    LoadOther,
    Reload,
    Unload,
    Cancel,
}

/// An app whose model `a` is held in one row of the table.
pub struct Scene {
    pub app: App,
    pub a: FakeModel,
    b: FakeModel,
    pub building: Gate,
    pub dropping: Gate,
}

impl Scene {
    pub fn new(a: FakeModel) -> Self {
        let mut app = App::new();
        app.add_plugins((
            MinimalPlugins,
            ModelPlugin::<Fake>::default(),
            RecorderPlugin::<Fake>::default(),
        ));
        app.update();
        let (building, dropping) = (Gate::closed(), Gate::closed());
        let a = a.gate(Place::Build, &building).gate(Place::Drop, &dropping);
        Self {
            app,
            a,
            b: FakeModel::new("b"),
            building,
            dropping,
        }
    }

    pub fn at(row: Row) -> Self {
        let fails = row == Row::Failed;
        let a = FakeModel::new("a");
        let mut scene = Self::new(if fails { a.fail_in(Place::Build) } else { a });
        match row {
            // One life before, so that there is a last source to reload.
            Row::Idle => {
                scene.open_gates();
                scene.ask(Request::LoadSame);
                scene.run_until_state(Loaded);
                scene.ask(Request::Unload);
                scene.run_until_state(Idle);
            }
            Row::Loading => scene.start_loading(),
            Row::Cancelling => {
                scene.start_loading();
                scene.ask(Request::Cancel);
                scene.run_until_dropping();
                assert_eq!(
                    scene.state(),
                    Loading,
                    "a cancel shows only when the memory is back"
                );
            }
            Row::Loaded => {
                scene.start_loading();
                scene.building.open();
                scene.run_until_state(Loaded);
            }
            Row::Unloading => {
                scene.start_loading();
                scene.building.open();
                scene.run_until_state(Loaded);
                scene.ask(Request::Unload);
                scene.run_until_dropping();
                assert_eq!(
                    scene.state(),
                    Unloading,
                    "an unload ends only when the memory is back"
                );
            }
            Row::Failed => {
                scene.open_gates();
                scene.ask(Request::LoadSame);
                scene.run_until_state(Failed);
            }
        }
        let mut recorder = scene.app.world_mut().resource_mut::<Recorder<Fake>>();
        recorder.assert_consistent();
        recorder.transitions.clear();
        scene
    }

    fn start_loading(&mut self) {
        self.ask(Request::LoadSame);
        let building = self.building.clone();
        run_until(&mut self.app, "the build", |_| building.waiting() == 1);
    }

    fn run_until_dropping(&mut self) {
        let dropping = self.dropping.clone();
        run_until(&mut self.app, "the drop", |_| dropping.waiting() == 1);
    }

    pub fn open_gates(&self) {
        self.building.open();
        self.dropping.open();
    }

    pub fn ask(&mut self, request: Request) {
        let (a, b) = (self.a.source(), self.b.source());
        let mut manager = self.app.world_mut().resource_mut::<ModelManager<Fake>>();
        match request {
            Request::LoadSame => manager.load(a),
            Request::LoadOther => manager.load(b),
            Request::Reload => manager.reload(),
            Request::Unload => manager.unload(),
            Request::Cancel => manager.cancel(),
        }
    }

    pub fn state(&self) -> ModelState {
        self.app
            .world()
            .resource::<ModelManager<Fake>>()
            .current_state
    }

    pub fn run_until_state(&mut self, state: ModelState) {
        run_until(&mut self.app, &format!("{state:?}"), |world| {
            world.resource::<ModelManager<Fake>>().current_state == state
        });
    }

    pub fn edges(&self) -> Vec<Edge> {
        self.app.world().resource::<Recorder<Fake>>().edges()
    }

    pub fn model_id(&self) -> Option<String> {
        self.app
            .world()
            .resource::<ModelManager<Fake>>()
            .model_id
            .as_ref()
            .map(ToString::to_string)
    }
}

/// A failed test must not leave a thread at a gate.
impl Drop for Scene {
    fn drop(&mut self) {
        self.open_gates();
    }
}
