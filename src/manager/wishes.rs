//! [`Wishes`]: what the requests of a frame come down to. Pure.

use crate::{ModelSource, ModelState, machine::Wish};

/// What the game wants, and what the manager is busy with.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    wanted: Wanted,
    /// What is loading, loaded or failed, or was last.
    current: Option<ModelSource>,
    /// What the game asked for last, for show: a failure does not change it.
    shown: Option<ModelSource>,
    /// The current model has gone by itself: only a job, or a new request, brings it back.
    asleep: bool,
    /// What is wanted is to be read again where it is parked.
    afresh: bool,
}

#[derive(Clone, PartialEq, Debug, Default)]
enum Wanted {
    /// Nothing new.
    #[default]
    AsIs,
    /// No model.
    Nothing,
    /// This model; `anew`: even if it is the current one.
    Model { source: ModelSource, anew: bool },
}

impl Wishes {
    pub(super) fn load(&mut self, source: ModelSource) {
        let is_same = matches!(&self.wanted, Wanted::Model { source: same, .. } if *same == source);
        let anew = is_same && matches!(&self.wanted, Wanted::Model { anew: true, .. });
        let afresh = is_same && self.afresh;
        self.want(source, anew);
        self.afresh = afresh;
    }

    /// While loading there is nothing to reload; where another model is wanted already, that is it.
    pub(super) fn reload(&mut self, state: ModelState) {
        let pending = match &self.wanted {
            Wanted::Model { source, .. } => Some(source.clone()),
            Wanted::AsIs | Wanted::Nothing => None,
        };
        let Some(source) = pending.or_else(|| self.current.clone()) else {
            return;
        };
        let is_current = self.current.as_ref() == Some(&source);
        let anew = is_current && matches!(state, ModelState::Loaded | ModelState::Failed);
        self.want(source, anew);
        self.afresh = true;
    }

    /// Whether what is wanted is to be read again, which is asked once.
    pub(super) fn take_afresh(&mut self) -> bool {
        std::mem::take(&mut self.afresh)
    }

    pub(super) fn unload(&mut self) {
        self.wanted = Wanted::Nothing;
        self.shown = None;
        self.asleep = false;
        self.afresh = false;
    }

    /// The current model goes, and is still wanted.
    pub(super) fn fall_asleep(&mut self) {
        let Some(source) = self.current.clone() else {
            return;
        };
        self.want(source, false);
        self.asleep = true;
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// What is loading, loaded or failed, or was last.
    pub(super) fn current(&self) -> Option<&ModelSource> {
        self.current.as_ref()
    }

    /// Takes back loads, and no unload: falls back to what is loaded.
    pub(super) fn cancel(&mut self, state: ModelState) {
        self.afresh = false;
        match state {
            ModelState::Loaded | ModelState::Failed if self.wanted == Wanted::Nothing => {}
            ModelState::Loaded => {
                self.wanted = Wanted::AsIs;
                self.shown = self.current.clone();
            }
            ModelState::Failed if self.wanted == Wanted::AsIs => {}
            ModelState::Failed => {
                self.wanted = Wanted::AsIs;
                self.shown = None;
            }
            ModelState::Idle | ModelState::Loading | ModelState::Unloading => self.unload(),
        }
    }

    fn want(&mut self, source: ModelSource, anew: bool) {
        self.shown = Some(source.clone());
        self.wanted = Wanted::Model { source, anew };
        self.asleep = false;
        self.afresh = false;
    }

    /// What is wanted, seen from what the manager is busy with.
    pub(super) fn wish(&self) -> Wish {
        match &self.wanted {
            Wanted::AsIs => Wish::AsIs,
            Wanted::Nothing => Wish::Nothing,
            Wanted::Model { anew: true, .. } => Wish::Anew,
            Wanted::Model { source, .. } if self.current.as_ref() == Some(source) => Wish::Current,
            Wanted::Model { .. } => Wish::Other,
        }
    }

    /// What the game asked for last.
    pub(super) fn wanted(&self) -> Option<&ModelSource> {
        self.shown.as_ref()
    }

    /// The wanted model becomes the current one.
    pub(super) fn start(&mut self) -> Option<ModelSource> {
        let Wanted::Model { source, anew } = &mut self.wanted else {
            return None;
        };
        *anew = false;
        self.asleep = false;
        self.current = Some(source.clone());
        self.current.clone()
    }

    /// The current model has failed: it is not tried again by itself.
    pub(super) fn fail(&mut self) {
        if self.wish() != Wish::Other {
            self.wanted = Wanted::AsIs;
        }
    }
}

#[cfg(test)]
mod tests {
    use ModelState::*;

    use super::*;

    /// Wishes in a state that the model `a` has reached.
    fn busy_with_a() -> Wishes {
        let mut wishes = Wishes::default();
        wishes.load("a".into());
        wishes.start();
        wishes
    }

    fn id(wishes: &Wishes) -> Option<String> {
        wishes.wanted().map(|source| source.id().to_string())
    }

    #[test]
    fn the_last_request_of_a_frame_counts() {
        let mut wishes = busy_with_a();
        wishes.unload();
        assert_eq!(wishes.wish(), Wish::Nothing);
        wishes.load("b".into());
        assert_eq!(wishes.wish(), Wish::Other);
        wishes.load("a".into());
        assert_eq!(
            wishes.wish(),
            Wish::Current,
            "still wanted: nothing happens"
        );
    }

    #[test]
    fn what_is_reloaded_is_read_afresh_unless_it_is_taken_back() {
        let reloaded = |then: fn(&mut Wishes)| {
            let mut wishes = busy_with_a();
            wishes.load("b".into());
            wishes.reload(Loaded);
            then(&mut wishes);
            wishes.take_afresh()
        };
        assert!(reloaded(|_| ()));
        assert!(reloaded(|wishes| wishes.load("b".into())), "still wanted");
        assert!(!reloaded(|wishes| wishes.load("c".into())));
        assert!(!reloaded(|wishes| wishes.cancel(Loaded)));
        assert!(!reloaded(Wishes::unload));
        assert!(!reloaded(|wishes| _ = wishes.take_afresh()), "once");
    }

    #[test]
    fn cancel_falls_back_to_what_is_loaded() {
        let mut wishes = busy_with_a();
        wishes.load("b".into());
        wishes.cancel(Loaded);
        assert_eq!((wishes.wish(), id(&wishes)), (Wish::AsIs, Some("a".into())));
        for state in [Idle, Loading, Unloading] {
            let mut wishes = busy_with_a();
            wishes.load("b".into());
            wishes.cancel(state);
            assert_eq!(
                (wishes.wish(), id(&wishes)),
                (Wish::Nothing, None),
                "{state:?}"
            );
        }
    }

    #[test]
    fn cancel_takes_back_no_unload() {
        for state in [Loaded, Failed] {
            let mut wishes = busy_with_a();
            wishes.unload();
            wishes.cancel(state);
            assert_eq!(
                (wishes.wish(), id(&wishes)),
                (Wish::Nothing, None),
                "{state:?}"
            );
        }
    }

    #[test]
    fn reload_means_anew_only_where_there_is_something() {
        let reloaded = |state, before: fn(&mut Wishes)| {
            let mut wishes = busy_with_a();
            before(&mut wishes);
            wishes.reload(state);
            (wishes.wish(), id(&wishes))
        };
        let a = Some("a".to_owned());
        let b = Some("b".to_owned());
        assert_eq!(reloaded(Loaded, |_| {}), (Wish::Anew, a.clone()));
        assert_eq!(
            reloaded(Failed, |wishes| wishes.fail()),
            (Wish::Anew, a.clone())
        );
        assert_eq!(reloaded(Loading, |_| {}), (Wish::Current, a.clone()));
        assert_eq!(reloaded(Idle, Wishes::unload), (Wish::Current, a.clone()));
        assert_eq!(
            reloaded(Unloading, Wishes::unload),
            (Wish::Current, a.clone())
        );
        assert_eq!(
            reloaded(Loaded, |wishes| wishes.load("b".into())),
            (Wish::Other, b.clone())
        );
        assert_eq!(
            reloaded(Unloading, |wishes| wishes.load("b".into())),
            (Wish::Other, b)
        );
        let mut never = Wishes::default();
        never.reload(Idle);
        assert_eq!(never.wish(), Wish::AsIs);
    }

    #[test]
    fn a_reload_survives_a_load_of_the_same_and_ends_with_its_start() {
        let mut wishes = busy_with_a();
        wishes.reload(Loaded);
        wishes.load("a".into());
        assert_eq!(wishes.wish(), Wish::Anew);
        wishes.start();
        assert_eq!(wishes.wish(), Wish::Current);
    }

    #[test]
    fn a_model_that_went_by_itself_stays_wanted_until_something_is_asked() {
        let asleep = || {
            let mut wishes = busy_with_a();
            wishes.cancel(Loaded);
            wishes.fall_asleep();
            wishes
        };
        assert!(asleep().is_asleep());
        assert_eq!(asleep().wish(), Wish::Current);
        assert_eq!(id(&asleep()), Some("a".into()));
        let requests: [fn(&mut Wishes); 5] = [
            |wishes| wishes.load("a".into()),
            |wishes| wishes.reload(Idle),
            |wishes| wishes.cancel(Idle),
            Wishes::unload,
            |wishes| drop(wishes.start()),
        ];
        for request in requests {
            let mut wishes = asleep();
            request(&mut wishes);
            assert!(!wishes.is_asleep());
        }
    }

    #[test]
    fn a_failed_model_stays_shown_and_is_not_tried_by_itself() {
        let mut wishes = busy_with_a();
        wishes.fail();
        assert_eq!((wishes.wish(), id(&wishes)), (Wish::AsIs, Some("a".into())));
        wishes.cancel(Failed);
        assert_eq!((wishes.wish(), id(&wishes)), (Wish::AsIs, Some("a".into())));
        wishes.load("b".into());
        wishes.fail();
        assert_eq!(
            wishes.wish(),
            Wish::Other,
            "what was asked for meanwhile is still wanted"
        );
    }
}
