//! [`Signal`] and [`Alarm`] say that the next frame has work; [`WakeUp`] has an app that sleeps look.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bevy::prelude::*;

use crate::panics::guarded;

#[cfg(feature = "winit")]
mod winit;
#[cfg(feature = "winit")]
pub(crate) use winit::wake_event_loop;

/// Raised by whoever has news for the managers: a request, a worker, a job. One for each app.
///
/// Without news a frame costs one look at it, however many kinds of models there are.
#[derive(Resource, Clone, Default, Debug)]
pub(crate) struct Signal(Arc<Raised>);

#[derive(Default)]
struct Raised {
    flag: AtomicBool,
    /// The app was woken, and has not looked since.
    woken: AtomicBool,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flag.fmt(f)
    }
}

impl Signal {
    /// Wakes the app with the first news since it looked: it takes them all at once.
    pub(crate) fn raise(&self) {
        self.0.flag.store(true, Ordering::Release);
        if !self.0.woken.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Called by whoever has news, in a drop, too: a panic of the game's ends here.
    fn wake(&self) {
        if let Some(wake) = self.0.wake.get() {
            guarded("the app's wake-up", wake);
        }
    }

    /// The app looks: what is raised from now on wakes it again, whether the news are taken in this frame or not.
    pub(crate) fn look(&self) -> bool {
        // A swap, and not a store: whoever raises sees it, or is seen.
        self.0.woken.swap(false, Ordering::AcqRel);
        self.is_raised()
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.flag.load(Ordering::Acquire)
    }

    /// Takes the news: what is raised from now on counts for the next time.
    pub(crate) fn take(&self) -> bool {
        self.0.flag.swap(false, Ordering::AcqRel)
    }
}

/// Wakes an app that sleeps until something happens, such as one with `WinitSettings::desktop_app()`: when a
/// load or a job has news, and when a request needs another frame.
///
/// With the feature `winit` an app with `WinitPlugin` is woken by itself. Another one says how, with
/// [`set`](Self::set); without that it shows a result when the next input comes.
///
/// A time-out ([`Residency::keep_alive`](crate::Residency::keep_alive)) wakes nobody: a model that is not used goes with
/// the next frame.
#[derive(Resource, Clone, Debug)]
pub struct WakeUp(Signal);

impl WakeUp {
    /// Has `wake` called from now on when there is news: on any thread, so it must be quick and must not wait. Where it
    /// panics, the app goes on and is not woken.
    ///
    /// An app has one: returns `false` where it has one already. The feature `winit` sets its own in `PostStartup`,
    /// unless a game was there before.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use bevy::prelude::*;
    /// use bevy_candle::prelude::*;
    ///
    /// let mut app = App::new();
    /// app.add_plugins((MinimalPlugins, ModelPlugin::<DdpmPipeline>::default()));
    /// app.update();
    /// let (sender, woken) = mpsc::channel();
    /// app.world().resource::<WakeUp>().set(move || _ = sender.send(()));
    /// app.world_mut().resource_mut::<ModelManager<DdpmPipeline>>().load("models/sprites");
    /// woken.recv().expect("the request needs a frame");
    /// ```
    pub fn set(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        let is_first = self.0.0.wake.set(Box::new(wake)).is_ok();
        if is_first && self.0.is_raised() {
            self.0.wake();
        }
        is_first
    }
}

impl FromWorld for WakeUp {
    fn from_world(world: &mut World) -> Self {
        Self(world.get_resource_or_init::<Signal>().clone())
    }
}

/// When a time-out ends that nobody signals, on the clock of `Time<Real>`.
#[derive(Resource, Default)]
pub(crate) struct Alarm(Option<Duration>);

impl Alarm {
    /// Asks for a look at that time, unless somebody needs it sooner.
    pub(crate) fn set(&mut self, due: Option<Duration>) {
        self.0 = [self.0, due].into_iter().flatten().min();
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.0.is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn an_app_is_woken_once_for_all_news_that_it_takes_together() {
        let (signal, woken) = (Signal::default(), Arc::new(AtomicU32::new(0)));
        let count = || woken.load(Ordering::SeqCst);
        signal.raise();
        let counter = woken.clone();
        let wake_up = WakeUp(signal.clone());
        assert!(wake_up.set(move || _ = counter.fetch_add(1, Ordering::SeqCst)));
        assert!(!wake_up.set(|| unreachable!("the first one counts")));
        assert_eq!(count(), 1, "what came before counts");
        signal.raise();
        assert_eq!(count(), 1);
        assert!(signal.look() && signal.take() && !signal.is_raised());
        signal.raise();
        signal.raise();
        assert_eq!(count(), 2);
    }

    #[test]
    fn news_that_a_frame_leaves_lying_wake_nobody_and_the_next_ones_do() {
        let (signal, woken) = (Signal::default(), Arc::new(AtomicU32::new(0)));
        let counter = woken.clone();
        WakeUp(signal.clone()).set(move || _ = counter.fetch_add(1, Ordering::SeqCst));
        signal.raise();
        assert!(signal.look(), "and does not take them");
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        signal.raise();
        assert_eq!(woken.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_wake_up_that_panics_is_survived() {
        let signal = Signal::default();
        WakeUp(signal.clone()).set(|| panic!("the event loop is closed"));
        signal.raise();
        assert!(signal.look());
    }

    #[test]
    fn the_soonest_alarm_counts() {
        let seconds = Duration::from_secs;
        let mut alarm = Alarm::default();
        alarm.set(Some(seconds(2)));
        alarm.set(None);
        alarm.set(Some(seconds(1)));
        alarm.set(Some(seconds(3)));
        assert!(alarm.is_due(seconds(1)) && !alarm.is_due(Duration::from_millis(999)));
        alarm.clear();
        assert!(!alarm.is_due(Duration::MAX));
    }
}
