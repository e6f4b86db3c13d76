//! What is measured of one manager.

use bevy::{
    diagnostic::{Diagnostic, DiagnosticMeasurement, DiagnosticPath, DiagnosticsStore},
    platform::time::Instant,
    prelude::*,
};

use crate::{ModelKind, ModelState, ModelStatus, manager::JobTally};

/// What is measured.
#[derive(Clone, Copy)]
pub(super) enum Quantity {
    Memory,
    LoadProgress,
    Queue,
    JobTime,
}

impl Quantity {
    const ALL: [Self; 4] = [Self::Memory, Self::LoadProgress, Self::Queue, Self::JobTime];

    pub(super) fn path(self, kind: &str) -> DiagnosticPath {
        let name = match self {
            Self::Memory => "memory",
            Self::LoadProgress => "load_progress",
            Self::Queue => "queue",
            Self::JobTime => "job_time",
        };
        DiagnosticPath::from_components(["model", kind, name])
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Memory => " bytes",
            Self::LoadProgress => "%",
            Self::Queue => " jobs",
            Self::JobTime => "ms",
        }
    }
}

/// Measures one manager.
pub(super) struct Gauge {
    kind: ModelKind,
    paths: [DiagnosticPath; 4],
    /// The jobs that were counted already.
    seen: JobTally,
}

impl Gauge {
    pub(super) fn new(kind: &ModelKind) -> Self {
        Self {
            kind: kind.clone(),
            paths: Quantity::ALL.map(|quantity| quantity.path(kind.name())),
            seen: JobTally::default(),
        }
    }

    pub(super) fn diagnostics(&self) -> impl Iterator<Item = Diagnostic> {
        let all = self.paths.iter().zip(Quantity::ALL);
        all.map(|(path, quantity)| Diagnostic::new(path.clone()).with_suffix(quantity.suffix()))
    }

    /// Measures; nothing where a game has removed the manager, and no job time where no job has ended.
    pub(super) fn read(&mut self, world: &World) -> impl Iterator<Item = Reading> {
        let tally = self.kind.tally(world);
        let seen = std::mem::replace(&mut self.seen, tally.unwrap_or_default());
        let job_time = tally.and_then(|tally| tally.mean_since(seen));
        let status = self.kind.status(world);
        let values = [
            status.map(|status| status.memory as f64),
            status.map(|status| f64::from(part_loaded(status)) * 100.0),
            status.map(|_| self.kind.jobs(world) as f64),
            job_time.map(|time| time.as_secs_f64() * 1000.0),
        ];
        let all = self.paths.iter().cloned().zip(values);
        all.filter_map(|(path, value)| {
            Some(Reading {
                path,
                value: value?,
            })
        })
    }
}

/// Of what is loading or loaded: what was loaded last is over.
fn part_loaded(status: &ModelStatus) -> f32 {
    match status.current_state {
        ModelState::Loading | ModelState::Loaded => status.progress.fraction(),
        ModelState::Idle | ModelState::Unloading | ModelState::Failed => 0.0,
    }
}

/// One value of one diagnostic.
pub(super) struct Reading {
    path: DiagnosticPath,
    value: f64,
}

impl Reading {
    pub(super) fn write(self, store: &mut DiagnosticsStore) {
        let diagnostic = store.get_mut(&self.path);
        if let Some(diagnostic) = diagnostic.filter(|diagnostic| diagnostic.is_enabled) {
            diagnostic.add_measurement(DiagnosticMeasurement {
                time: Instant::now(),
                value: self.value,
            });
        }
    }
}
