//! Decisions on a budget of 100.

use std::time::Duration;

use Standing::*;
use Verdict::*;

use super::*;
use crate::memory::eviction::{LeastRecentlyUsed, SlotId};

fn tenant(standing: Standing, bytes: u64, last_used: u64, jobs: u32) -> Tenant {
    let model = ResidentModel {
        last_used: Duration::from_secs(last_used),
        jobs,
        ..ResidentModel::new(SlotId::new(last_used as u32), "a model", bytes)
    };
    Tenant {
        standing,
        pinned: false,
        model,
    }
}

fn pinned(tenant: Tenant) -> Tenant {
    Tenant {
        pinned: true,
        ..tenant
    }
}

fn load(needed: u64) -> Request {
    let job_of = None;
    Request { needed, job_of }
}

fn job(needed: u64, model: usize) -> Request {
    let job_of = Some(model);
    Request { needed, job_of }
}

/// Decides with a budget of 100, of which the tenants and `working` are in use.
fn decide(working: u64, tenants: &[Tenant], requests: &[Request]) -> Decision {
    let weights: u64 = tenants.iter().map(|tenant| tenant.model.bytes).sum();
    super::decide(
        100,
        weights + working,
        working,
        tenants,
        requests,
        &LeastRecentlyUsed,
    )
}

fn set(tenants: &[usize]) -> BTreeSet<usize> {
    tenants.iter().copied().collect()
}

#[test]
fn what_fits_is_granted_until_it_is_full() {
    let decision = decide(
        0,
        &[pinned(tenant(Loaded, 40, 1, 0))],
        &[load(30), load(30)],
    );
    assert_eq!(decision.verdicts, [Grant, Grant]);
    let decision = decide(0, &[tenant(Loading, 40, 1, 0)], &[load(30), load(31)]);
    assert_eq!(
        decision.verdicts,
        [Grant, Wait],
        "what loads is a candidate later"
    );
}

#[test]
fn the_least_recently_used_makes_room_and_no_more_than_needed() {
    let tenants = [
        tenant(Loaded, 30, 3, 0),
        tenant(Loaded, 30, 1, 0),
        tenant(Loaded, 30, 2, 0),
    ];
    let decision = decide(0, &tenants, &[load(40)]);
    assert_eq!(decision.verdicts, [Wait]);
    assert_eq!(decision.leaving, set(&[1]));
    assert_eq!(decide(0, &tenants, &[load(41)]).leaving, set(&[1, 2]));
}

#[test]
fn parked_models_go_before_any_loaded_one() {
    let tenants = [tenant(Loaded, 40, 1, 0), tenant(Parked, 40, 9, 0)];
    let decision = decide(0, &tenants, &[load(50)]);
    assert_eq!(decision.leaving, set(&[1]));
}

#[test]
fn what_is_on_its_way_back_is_waited_for() {
    let tenants = [tenant(Loaded, 40, 1, 0), tenant(Leaving, 60, 2, 0)];
    let decision = decide(0, &tenants, &[load(60)]);
    assert_eq!(
        (decision.verdicts, decision.leaving),
        (vec![Wait], set(&[]))
    );
}

#[test]
fn two_loads_that_want_the_same_room_share_one_eviction() {
    let tenants = [tenant(Loaded, 80, 1, 0)];
    let decision = decide(0, &tenants, &[load(30), load(30)]);
    assert_eq!(decision.verdicts, [Wait, Wait]);
    assert_eq!(decision.leaving, set(&[0]));
}

#[test]
fn of_two_loads_that_want_one_victim_the_second_waits_for_the_first() {
    let victim = [tenant(Loaded, 60, 1, 0)];
    let decision = decide(0, &victim, &[load(60), load(60)]);
    assert_eq!(decision.verdicts, [Wait, Wait]);
    let first_loads = [tenant(Loading, 60, 1, 0)];
    let decision = decide(0, &first_loads, &[load(60)]);
    assert_eq!(
        (decision.verdicts, decision.leaving),
        (vec![Wait], set(&[]))
    );
    let first_is_loaded = [tenant(Loaded, 60, 1, 0)];
    assert_eq!(decide(0, &first_is_loaded, &[load(60)]).leaving, set(&[0]));
}

#[test]
fn with_too_much_pinned_a_request_is_refused_and_nobody_goes() {
    let tenants = [pinned(tenant(Loaded, 70, 1, 0)), tenant(Loaded, 20, 2, 0)];
    let decision = decide(0, &tenants, &[load(31)]);
    assert_eq!(
        (decision.verdicts, decision.leaving),
        (vec![Refuse], set(&[]))
    );
    let decision = decide(0, &tenants, &[load(30)]);
    assert_eq!(
        (decision.verdicts, decision.leaving),
        (vec![Wait], set(&[1]))
    );
    assert_eq!(decide(0, &[], &[load(101)]).verdicts, [Refuse]);
}

#[test]
fn a_busy_model_is_drained_and_only_where_idle_ones_are_not_enough() {
    let tenants = [tenant(Loaded, 40, 1, 2), tenant(Loaded, 40, 2, 0)];
    let decision = decide(0, &tenants, &[load(60)]);
    assert_eq!((decision.leaving, decision.draining), (set(&[1]), set(&[])));
    let decision = decide(0, &tenants, &[load(61)]);
    assert_eq!(
        (decision.leaving, decision.draining),
        (set(&[1]), set(&[0]))
    );
}

#[test]
fn a_job_waits_for_other_jobs_before_a_model_goes_for_it() {
    let tenants = [tenant(Loaded, 30, 1, 0), tenant(Loaded, 30, 2, 1)];
    let decision = decide(30, &tenants, &[job(30, 0)]);
    assert_eq!(decision.verdicts, [Wait]);
    assert_eq!((decision.leaving, decision.draining), (set(&[]), set(&[])));
    let decision = decide(30, &tenants, &[load(30)]);
    assert_eq!(decision.leaving, set(&[0]), "a load waits for no job");
}

#[test]
fn a_job_never_evicts_its_own_model() {
    let tenants = [tenant(Loaded, 60, 1, 1)];
    assert_eq!(decide(0, &tenants, &[job(40, 0)]).verdicts, [Grant]);
    let decision = decide(0, &tenants, &[job(41, 0)]);
    assert_eq!(
        (decision.verdicts, decision.draining),
        (vec![Refuse], set(&[]))
    );
}

#[test]
fn of_two_jobs_that_want_each_others_model_gone_the_first_wins() {
    let tenants = [tenant(Loaded, 50, 1, 1), tenant(Loaded, 50, 2, 1)];
    let decision = decide(0, &tenants, &[job(10, 1), job(10, 0)]);
    assert_eq!(decision.verdicts, [Wait, Return]);
    assert_eq!(decision.draining, set(&[0]));
}

#[test]
fn a_later_request_never_takes_the_model_of_a_job_ahead() {
    let tenants = [tenant(Loaded, 50, 1, 1), tenant(Loading, 50, 2, 0)];
    let decision = decide(0, &tenants, &[job(10, 0), load(10)]);
    assert_eq!(decision.verdicts, [Wait, Wait]);
    assert_eq!(decision.draining, set(&[]));
}

#[test]
fn a_small_request_passes_a_large_one_only_where_it_takes_nothing_from_it() {
    let tenants = [tenant(Leaving, 60, 1, 0), tenant(Loading, 20, 2, 0)];
    let decision = decide(0, &tenants, &[load(70), load(10)]);
    assert_eq!(decision.verdicts, [Wait, Grant]);
    let decision = decide(0, &tenants, &[load(75), load(10)]);
    assert_eq!(decision.verdicts, [Wait, Wait]);
}

#[test]
fn a_budget_below_what_is_in_use_makes_idle_models_go() {
    let tenants = [
        pinned(tenant(Loaded, 60, 1, 0)),
        tenant(Loaded, 60, 2, 0),
        tenant(Loaded, 60, 3, 1),
    ];
    let decision = decide(0, &tenants, &[]);
    assert_eq!(decision.leaving, set(&[1]));
    assert_eq!(decision.draining, set(&[2]));
}

#[test]
fn a_policy_that_lets_nobody_go_refuses_the_request() {
    #[derive(Debug)]
    struct Nobody;
    impl EvictionPolicy for Nobody {
        fn next_victim(&self, _: u64, _: &[ResidentModel]) -> Option<usize> {
            None
        }
    }
    let tenants = [tenant(Loaded, 60, 1, 0), tenant(Parked, 10, 2, 0)];
    let decision = super::decide(100, 70, 0, &tenants, &[load(60), load(30)], &Nobody);
    assert_eq!(decision.verdicts, [Refuse, Grant]);
    assert_eq!(decision.leaving, set(&[]), "and nobody goes for it");
}
