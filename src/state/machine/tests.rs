//! The machine on whatever facts, edge by edge.

use ModelState::*;
use TransitionReason as R;

use super::*;

const WISHES: [Wish; 5] = [
    Wish::AsIs,
    Wish::Nothing,
    Wish::Current,
    Wish::Anew,
    Wish::Other,
];

fn machine(state: ModelState, leaving: Option<R>) -> StateManager {
    StateManager { state, leaving }
}

fn every_fact() -> impl Iterator<Item = Facts> {
    WISHES.into_iter().flat_map(|wish| {
        [None, Some(Ended::Released), Some(Ended::Failed)]
            .into_iter()
            .flat_map(move |ended| {
                (0..64).map(move |bits: u32| Facts {
                    wish,
                    built: bits & 1 != 0,
                    ended,
                    retry_due: bits & 2 != 0,
                    leave: (bits & 4 != 0).then_some(Leave::Evicted),
                    asleep: bits & 8 != 0,
                    job_waits: bits & 16 != 0,
                    releasing: bits & 32 != 0,
                })
            })
    })
}

#[test]
fn each_pair_of_states_is_an_edge_or_not() {
    let edges = [
        (Idle, Loading),
        (Loading, Loaded),
        (Loading, Idle),
        (Loading, Failed),
        (Loaded, Unloading),
        (Unloading, Idle),
        (Unloading, Failed),
        (Failed, Loading),
        (Failed, Idle),
    ];
    for from in ModelState::ALL {
        for to in ModelState::ALL {
            assert_eq!(
                from.can_become(to),
                edges.contains(&(from, to)),
                "{from:?} -> {to:?}"
            );
        }
    }
}

#[test]
fn whatever_the_facts_only_edges_of_the_list_are_taken() {
    let mut taken = std::collections::HashSet::new();
    for state in ModelState::ALL {
        for leaving in [None, Some(R::LoadCancelled)] {
            for facts in every_fact() {
                let mut machine = machine(state, leaving);
                if let Some((to, _)) = machine.step(facts).edge {
                    assert!(state.can_become(to), "{state:?} -> {to:?} with {facts:?}");
                    assert_eq!(machine.state(), to);
                    taken.insert((state, to));
                } else {
                    assert_eq!(machine.state(), state);
                }
            }
        }
    }
    assert_eq!(taken.len(), 9, "every edge of the list can be reached");
}

#[test]
fn a_cancel_beats_a_load_that_just_finished() {
    let mut machine = machine(Loading, None);
    let step = machine.step(Facts {
        wish: Wish::Nothing,
        built: true,
        ..Default::default()
    });
    assert_eq!(step, Step::STAY.with(ModelAction::Drop));
    assert!(machine.is_leaving());
    let step = machine.step(Facts {
        wish: Wish::Nothing,
        built: true,
        ..Default::default()
    });
    assert_eq!(step, Step::STAY, "the drop is ordered once");
    let step = machine.step(Facts {
        wish: Wish::Nothing,
        ended: Some(Ended::Released),
        ..Default::default()
    });
    assert_eq!(step.edge, Some((Idle, R::LoadCancelled)));
}

#[test]
fn wanting_the_cancelled_model_again_waits_for_its_memory() {
    let mut machine = machine(Loading, Some(R::LoadCancelled));
    let wish = Wish::Current;
    assert_eq!(
        machine.step(Facts {
            wish,
            built: true,
            ..Default::default()
        }),
        Step::STAY
    );
    let gone = Facts {
        wish,
        ended: Some(Ended::Released),
        ..Default::default()
    };
    assert_eq!(machine.step(gone).edge, Some((Idle, R::LoadCancelled)));
    let step = machine.step(Facts {
        wish,
        ..Default::default()
    });
    assert_eq!(step.edge, Some((Loading, R::LoadRequested)));
    assert_eq!(step.action, Some(ModelAction::Start));
}

#[test]
fn a_failed_model_is_tried_again_only_when_due() {
    let wish = Wish::Current;
    let mut machine = machine(Failed, None);
    assert_eq!(
        machine.step(Facts {
            wish,
            ..Default::default()
        }),
        Step::STAY
    );
    let step = machine.step(Facts {
        wish,
        retry_due: true,
        ..Default::default()
    });
    assert_eq!(step.edge, Some((Loading, R::LoadRequested)));
}

#[test]
fn a_model_that_makes_room_or_expires_is_still_wanted_and_only_a_job_brings_it_back() {
    for (leave, reason) in [(Leave::Evicted, R::Evicted), (Leave::Expired, R::Expired)] {
        let mut machine = machine(Loaded, None);
        let wish = Wish::Current;
        let leave = Some(leave);
        let step = machine.step(Facts {
            wish,
            leave,
            ..Default::default()
        });
        assert_eq!(step.edge, Some((Unloading, reason)));
        assert_eq!(step.action, Some(ModelAction::Drop));
        let asleep = Facts {
            wish,
            asleep: true,
            ..Default::default()
        };
        let ended = Some(Ended::Released);
        let step = machine.step(Facts { ended, ..asleep });
        assert_eq!(step.edge, Some((Idle, R::UnloadCompleted)));
        assert_eq!(machine.step(asleep), Step::STAY);
        let job_waits = true;
        let step = machine.step(Facts {
            job_waits,
            ..asleep
        });
        assert_eq!(step.edge, Some((Loading, R::JobRequested)));
    }
}

#[test]
fn a_request_of_the_game_names_the_reason_before_an_eviction_does() {
    for (wish, reason) in [
        (Wish::Nothing, R::UnloadRequested),
        (Wish::Other, R::Superseded),
        (Wish::Anew, R::Reload),
    ] {
        let leave = Some(Leave::Evicted);
        let step = machine(Loaded, None).step(Facts {
            wish,
            leave,
            ..Default::default()
        });
        assert_eq!(step.edge, Some((Unloading, reason)));
    }
}

#[test]
fn shutting_down_takes_the_edges_that_are_left() {
    let edges = |state, released| machine(state, None).shut_down(released);
    assert_eq!(
        edges(Loaded, true),
        [(Unloading, R::Shutdown), (Idle, R::Shutdown)]
    );
    assert_eq!(edges(Loaded, false), [(Unloading, R::Shutdown)]);
    assert_eq!(edges(Loading, true), [(Idle, R::Shutdown)]);
    assert_eq!(edges(Loading, false), []);
    assert_eq!(edges(Unloading, true), [(Idle, R::Shutdown)]);
    assert_eq!(edges(Idle, true), []);
    assert_eq!(edges(Failed, true), []);
}
