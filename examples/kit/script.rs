//! Plays a scene from a file, through the same messages that a window sends.
//!
//! ```text
//! wait 1.5            seconds
//! until Loaded        a state of any model, or a text on the screen
//! key 1 Space         pressed and released, one a frame
//! hold L 1.0          held down for so many seconds
//! click Forge         the button with this label, or a row with this text
//! resize 900x700      the window, in pixels
//! shot loading        a screenshot, as loading.png
//! close               the window's close button
//! ```
//!
//! The log has every line. Where something does not come about, the scene ends with an error.

use std::{collections::VecDeque, fs, iter, path::PathBuf, time::Duration};

use bevy::{
    input::{
        ButtonState,
        keyboard::{Key, KeyboardInput, NativeKey},
        mouse::MouseButtonInput,
    },
    prelude::*,
    render::view::screenshot::{Screenshot, save_to_disk},
    ui::UiGlobalTransform,
    window::{CursorMoved, PrimaryWindow, WindowCloseRequested, WindowEvent},
};
use bevy_candle::{ModelKinds, ModelState};

pub struct ScriptPlugin {
    pub file: PathBuf,
    pub shots: PathBuf,
}

impl Plugin for ScriptPlugin {
    fn build(&self, app: &mut App) {
        let text = fs::read_to_string(&self.file).unwrap_or_else(|error| {
            warn!("{}: {error}; nothing is played", self.file.display());
            String::new()
        });
        let _ = fs::create_dir_all(&self.shots);
        app.insert_resource(Script {
            lines: text.lines().map(String::from).collect(),
            later: VecDeque::new(),
            pause: Duration::from_millis(200),
            waited: Duration::ZERO,
            shots: self.shots.clone(),
        })
        .add_systems(Last, play);
    }
}

/// What is still to be played.
#[derive(Resource)]
struct Script {
    lines: VecDeque<String>,
    /// What follows a line, frame by frame.
    later: VecDeque<Vec<WindowEvent>>,
    pause: Duration,
    /// How long the next line has not come about.
    waited: Duration,
    shots: PathBuf,
}

/// How long a line may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

fn play(world: &mut World) {
    world.resource_scope(|world, mut script: Mut<Script>| script.step(world));
}

impl Script {
    fn step(&mut self, world: &mut World) {
        if let Some(events) = self.later.pop_front() {
            events.into_iter().for_each(|event| send(world, event));
            return;
        }
        let delta = world.resource::<Time<Real>>().delta();
        self.pause = self.pause.saturating_sub(delta);
        if !self.pause.is_zero() {
            return;
        }
        let Some(line) = self.lines.pop_front() else {
            return;
        };
        if self.perform(world, line.trim()) {
            info!("script: {line}");
            self.waited = Duration::ZERO;
            return;
        }
        self.waited += delta;
        if self.waited < PATIENCE {
            self.lines.push_front(line);
        } else {
            error!("the script waited too long: {line}");
            self.lines.clear();
            world.write_message(AppExit::error());
        }
    }

    /// Returns whether the next line may come.
    fn perform(&mut self, world: &mut World, line: &str) -> bool {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "wait" => self.pause = seconds(rest),
            "until" => return shows(world, rest),
            "key" => rest.split(' ').for_each(|key| self.press(world, key)),
            "hold" => {
                let (key, time) = rest.split_once(' ').unwrap_or((rest, "1"));
                self.hold(world, key, seconds(time));
            }
            "click" => return self.click(world, rest),
            "shot" => self.shoot(world, rest),
            "resize" => resize(world, rest),
            "close" => close(world),
            _ => {}
        }
        true
    }

    fn press(&mut self, world: &mut World, name: &str) {
        let events = [ButtonState::Pressed, ButtonState::Released]
            .map(|state| key_event(world, name, state, false));
        self.later.push_back(events.into_iter().flatten().collect());
    }

    /// A key that is held repeats, as a keyboard does.
    fn hold(&mut self, world: &mut World, name: &str, time: Duration) {
        let repeats = time.as_millis() / 33;
        let frames = iter::once((ButtonState::Pressed, false))
            .chain((0..repeats).map(|_| (ButtonState::Pressed, true)))
            .chain([(ButtonState::Released, false)]);
        for (state, repeat) in frames {
            let event = key_event(world, name, state, repeat);
            self.later.push_back(event.into_iter().collect());
        }
    }

    fn click(&mut self, world: &mut World, label: &str) -> bool {
        let Some((position, window)) = place_of(world, label).zip(window(world)) else {
            return false;
        };
        let button = |state| {
            WindowEvent::MouseButtonInput(MouseButtonInput {
                button: MouseButton::Left,
                state,
                window,
            })
        };
        let moved = WindowEvent::CursorMoved(CursorMoved {
            window,
            position,
            delta: None,
        });
        let pressed = button(ButtonState::Pressed);
        let released = button(ButtonState::Released);
        self.later
            .extend([vec![moved], vec![pressed], vec![released]]);
        true
    }

    fn shoot(&mut self, world: &mut World, name: &str) {
        let file = self.shots.join(name).with_extension("png");
        world
            .spawn(Screenshot::primary_window())
            .observe(save_to_disk(file));
        self.pause = Duration::from_millis(300);
    }
}

fn key_event(
    world: &mut World,
    name: &str,
    state: ButtonState,
    repeat: bool,
) -> Option<WindowEvent> {
    let Some(key_code) = key(name) else {
        warn!("the script has an unknown key, {name}");
        return None;
    };
    Some(WindowEvent::KeyboardInput(KeyboardInput {
        key_code,
        logical_key: Key::Unidentified(NativeKey::Unidentified),
        state,
        text: None,
        repeat,
        window: window(world)?,
    }))
}

/// Sends an event the two ways in which Bevy's window does.
fn send(world: &mut World, event: WindowEvent) {
    match &event {
        WindowEvent::KeyboardInput(input) => _ = world.write_message(input.clone()),
        WindowEvent::MouseButtonInput(input) => _ = world.write_message(*input),
        WindowEvent::CursorMoved(moved) => _ = world.write_message(moved.clone()),
        _ => {}
    }
    world.write_message(event);
}

fn resize(world: &mut World, text: &str) {
    let mut windows = world.query_filtered::<&mut Window, With<PrimaryWindow>>();
    match (super::size(text), windows.single_mut(world)) {
        (Ok(size), Ok(mut window)) => {
            window.resolution.set_physical_resolution(size.x, size.y);
        }
        (Err(error), _) => warn!("the script has a wrong size: {error}"),
        (_, Err(_)) => {}
    }
}

fn close(world: &mut World) {
    if let Some(window) = window(world) {
        world.write_message(WindowCloseRequested { window });
    }
}

fn window(world: &mut World) -> Option<Entity> {
    let mut windows = world.query_filtered::<Entity, With<PrimaryWindow>>();
    windows.single(world).ok()
}

/// The middle of the node that has a label, in the window.
fn place_of(world: &mut World, label: &str) -> Option<Vec2> {
    let mut windows = world.query_filtered::<&Window, With<PrimaryWindow>>();
    let scale = windows.single(world).ok()?.scale_factor();
    let mut labels = world.query::<(&Text, &UiGlobalTransform, &ComputedNode)>();
    let mut all = labels.iter(world);
    let (_, at, _) = all.find(|(text, _, node)| text.0 == label && !node.is_empty())?;
    Some(at.translation / scale)
}

/// Whether a model is in the state, or a text has this in it.
fn shows(world: &mut World, part: &str) -> bool {
    if let Some(state) = ModelState::ALL
        .into_iter()
        .find(|state| format!("{state:?}") == part)
    {
        let kinds = world.resource::<ModelKinds>();
        let mut states = kinds.iter().filter_map(|kind| kind.status(world));
        return states.any(|status| status.current_state == state);
    }
    let mut texts = world.query::<&Text>();
    texts.iter(world).any(|text| text.0.contains(part))
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f32(text.parse().unwrap_or(0.0))
}

fn key(name: &str) -> Option<KeyCode> {
    Some(match name {
        "Space" => KeyCode::Space,
        "L" => KeyCode::KeyL,
        "C" => KeyCode::KeyC,
        "U" => KeyCode::KeyU,
        "R" => KeyCode::KeyR,
        "T" => KeyCode::KeyT,
        "1" => KeyCode::Digit1,
        "2" => KeyCode::Digit2,
        "3" => KeyCode::Digit3,
        "4" => KeyCode::Digit4,
        "5" => KeyCode::Digit5,
        "6" => KeyCode::Digit6,
        "7" => KeyCode::Digit7,
        "8" => KeyCode::Digit8,
        _ => return None,
    })
}
