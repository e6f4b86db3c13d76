//! What a card says of a manager. Pure, but for reading the world.

use bevy::prelude::*;

use crate::{ErrorChain, LoadPhase, ModelKind, ModelRequest, ModelState, ModelStatus, Progress};

/// What is shown of all managers, by their places in [`ModelKinds`](crate::ModelKinds); [`None`] for one that a game
/// has removed before it was seen.
#[derive(Resource, Default, PartialEq)]
pub(super) struct Cards(pub(super) Vec<Option<Card>>);

impl Cards {
    pub(super) fn get(&self, place: usize) -> Option<&Card> {
        self.0.get(place)?.as_ref()
    }
}

/// What is shown of one manager.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Card {
    pub(super) state: ModelState,
    /// 0 to 1.
    pub(super) done: f32,
    /// The texts, by [`Line`].
    lines: [String; 6],
    /// Whether a button would do something, by [`BUTTONS`].
    can: [bool; 4],
}

/// A text of a card.
#[derive(Component, Clone, Copy, PartialEq, Debug)]
pub(super) enum Line {
    Name,
    State,
    Model,
    Progress,
    Memory,
    Error,
}

/// The buttons of a card, from left to right.
pub(super) const BUTTONS: [(ModelRequest, &str); 4] = [
    (ModelRequest::Load, "Load"),
    (ModelRequest::Cancel, "Cancel"),
    (ModelRequest::Unload, "Unload"),
    (ModelRequest::Reload, "Reload"),
];

impl Card {
    pub(super) fn of(kind: &ModelKind, world: &World) -> Option<Self> {
        let status = kind.status(world)?;
        let can = BUTTONS.map(|(request, _)| kind.can(world, request));
        Some(Self::new(kind.name(), status, kind.jobs(world), can))
    }

    fn new(name: &str, status: &ModelStatus, jobs: usize, can: [bool; 4]) -> Self {
        let model = status.model_id.as_ref().or(status.wanted.as_ref());
        let error = status.last_error.as_deref().map(|error| ErrorChain(error));
        let lines = [
            name.to_owned(),
            format!("{:?}", status.current_state),
            model.map_or("no model".into(), ToString::to_string),
            progress(status),
            format!("{} claimed, {}", bytes(status.memory), count(jobs)),
            error.map_or(String::new(), |error| error.to_string()),
        ];
        Self {
            state: status.current_state,
            done: part_done(status),
            lines,
            can,
        }
    }

    pub(super) fn line(&self, line: Line) -> &str {
        &self.lines[line as usize]
    }

    pub(super) fn can(&self, request: ModelRequest) -> bool {
        let mut all = BUTTONS.iter().zip(self.can);
        all.any(|((button, _), can)| *button == request && can)
    }
}

fn part_done(status: &ModelStatus) -> f32 {
    match status.current_state {
        ModelState::Loading => status.progress.fraction(),
        ModelState::Loaded => 1.0,
        ModelState::Idle | ModelState::Unloading | ModelState::Failed => 0.0,
    }
}

fn progress(status: &ModelStatus) -> String {
    let Progress { phase, done, total } = status.progress;
    match status.current_state {
        ModelState::Loading if phase == LoadPhase::Planning => "reading headers".into(),
        ModelState::Loading if phase == LoadPhase::Waiting => "waiting for memory".into(),
        ModelState::Loading => format!("{} of {}", bytes(done), bytes(total)),
        ModelState::Loaded => format!("{} read", bytes(total)),
        ModelState::Unloading => "giving memory back".into(),
        ModelState::Failed => "failed".into(),
        ModelState::Idle => status.last_release.map_or(String::new(), |report| {
            format!(
                "{} given back",
                bytes(report.freed.unwrap_or(report.claimed))
            )
        }),
    }
}

/// Jobs, those that run included.
fn count(jobs: usize) -> String {
    match jobs {
        1 => "1 job".into(),
        jobs => format!("{jobs} jobs"),
    }
}

/// Bytes as a person reads them.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::LoadError;

    #[test]
    fn a_card_says_what_a_load_does() {
        let status = ModelStatus {
            current_state: ModelState::Loading,
            wanted: Some("swords".into()),
            progress: Progress {
                phase: LoadPhase::Reading,
                done: 1_800_000,
                total: 7_200_000,
            },
            memory: 7_200_000,
            ..default()
        };
        let card = Card::new("Sprites", &status, 2, [false, true, true, false]);
        assert_eq!(card.done, 0.25);
        assert_eq!(card.line(Line::Model), "swords");
        assert_eq!(card.line(Line::Progress), "1.8 MB of 7.2 MB");
        assert_eq!(card.line(Line::Memory), "7.2 MB claimed, 2 jobs");
        assert!(card.can(ModelRequest::Unload) && !card.can(ModelRequest::Load));
    }

    #[test]
    fn a_failure_shows_its_reason() {
        let error = LoadError::FileMissing {
            file: "config.json".into(),
            folder: "models/none".into(),
        };
        let status = ModelStatus {
            current_state: ModelState::Failed,
            last_error: Some(Arc::new(error)),
            ..default()
        };
        let card = Card::new("Sprites", &status, 0, [true; 4]);
        assert!(card.line(Line::Error).contains("config.json"));
        assert_eq!(card.done, 0.0);
    }

    #[test]
    fn bytes_are_readable() {
        let all = [999, 1_000, 3_561_000, 1_073_741_824].map(bytes);
        assert_eq!(all, ["999 B", "1 kB", "3.6 MB", "1.07 GB"]);
    }
}
