//! Runs the arbiter over the line of each device, and brings the view up to date.

use std::{cmp::Reverse, sync::Arc};

use bevy::prelude::*;
use tracing::debug;

use super::{
    Account, Books, DeviceMemory, Ledger, ModelMemory, ResourceManager,
    arbiter::{Decision, Request, Tenant, Verdict, decide},
    ledger::Shortage,
    line::{Answer, Waiter, Waits},
};
use crate::DeviceChoice;

/// Answers who waits for memory, and tells models to make room.
pub(crate) fn arbitrate(mut memory: ResMut<ResourceManager>) {
    let books = &mut memory.bypass_change_detection().books;
    books.waiting.extend(books.line.1.try_iter());
    books.waiting.retain(|waiter| !waiter.watch.is_cut());
    books.accounts.retain(|account| !account.is_closed());
    for (device, ledger) in books.devices.clone() {
        books.arbitrate_device(device, &ledger);
    }
}

/// Brings what games see up to date. The resource counts as changed only where something has.
pub(crate) fn show_memory(mut memory: ResMut<ResourceManager>) {
    let seen = memory.bypass_change_detection();
    let open = seen.books.accounts.iter();
    let open = open.filter(|account| !account.is_closed());
    let models: Vec<_> = open.map(|account| ModelMemory::of(account)).collect();
    let devices = seen.books.devices.iter();
    let devices: Vec<_> = devices
        .map(|(device, ledger)| DeviceMemory::of(*device, ledger, &models))
        .collect();
    if (&devices, &models) != (&seen.devices, &seen.models) {
        (memory.devices, memory.models) = (devices, models);
    }
}

impl Books {
    fn arbitrate_device(&mut self, device: DeviceChoice, ledger: &Arc<Ledger>) {
        let Some(budget) = ledger.budget() else {
            return;
        };
        let there = |account: &&Arc<Account>| account.holder().device == device;
        let accounts: Vec<_> = self.accounts.iter().filter(there).cloned().collect();
        let tenants: Vec<_> = accounts.iter().map(|account| account.tenant()).collect();
        // Nobody makes room for a load that was cancelled since the last frame.
        let is_in_line = |waiter: &mut Waiter| {
            waiter.account.holder().device == device && waiter.account.is_wanted()
        };
        let mut line: Vec<_> = self.waiting.extract_if(.., is_in_line).collect();
        // Stable: who came first is served first, among those of the same priority.
        line.sort_by_key(|waiter| {
            let not_first = waiter.kind != Waits::FirstJob;
            (not_first, Reverse(waiter.account.priority()))
        });
        let requests: Vec<_> = line
            .iter()
            .map(|waiter| request(waiter, &accounts))
            .collect();
        let (in_use, working) = (ledger.in_use(), ledger.working());
        let decision = decide(budget, in_use, working, &tenants, &requests, &*self.policy);
        tell_models(&accounts, &tenants, &decision);
        for (waiter, verdict) in line.into_iter().zip(decision.verdicts) {
            self.waiting.extend(settle(waiter, verdict, ledger));
        }
    }
}

fn request(waiter: &Waiter, accounts: &[Arc<Account>]) -> Request {
    let own = |account: &Arc<Account>| Arc::ptr_eq(account, &waiter.account);
    Request {
        needed: waiter.needed,
        job_of: accounts
            .iter()
            .position(own)
            .filter(|_| waiter.kind != Waits::Load),
    }
}

fn tell_models(accounts: &[Arc<Account>], tenants: &[Tenant], decision: &Decision) {
    for (i, account) in accounts.iter().enumerate() {
        account.set_draining(decision.draining.contains(&i));
        if decision.leaving.contains(&i) {
            debug!(
                "{} of {} bytes makes room",
                tenants[i].model.model_id, tenants[i].model.bytes
            );
            account.evict();
        }
    }
}

/// Answers, or returns who goes on waiting.
fn settle(waiter: Waiter, verdict: Verdict, ledger: &Arc<Ledger>) -> Option<Waiter> {
    let answer = match verdict {
        Verdict::Wait => return Some(waiter),
        Verdict::Grant => match ledger.claim(waiter.needed) {
            Some(claim) => Answer::Granted(claim),
            // Somebody was faster: the first job of a model goes before the line.
            None => return Some(waiter),
        },
        Verdict::Return => Answer::Return,
        Verdict::Refuse => Answer::OverBudget(Shortage {
            needed: waiter.needed,
            budget: ledger.budget().unwrap_or_default(),
            in_use: ledger.in_use(),
        }),
    };
    waiter.answer(answer);
    None
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, unbounded};

    use super::*;
    use crate::{
        Standing,
        lifeline::{Lifeline, Watch},
        memory::Holder,
    };

    /// Opens the books of models that share a budget.
    fn accounts<const N: usize>(budget: u64, names: [&str; N]) -> (World, [Arc<Account>; N]) {
        let mut world = World::new();
        world.init_resource::<ResourceManager>();
        let mut memory = world.resource_mut::<ResourceManager>();
        memory.configure(DeviceChoice::Cpu, Some(budget));
        let accounts = names.map(|name| {
            let slot = memory.add_slot();
            memory.open_account(Holder {
                slot,
                kind: name.into(),
                model_id: name.into(),
                device: DeviceChoice::Cpu,
            })
        });
        (world, accounts)
    }

    /// Has a model loaded, until what is returned is dropped.
    fn hold(account: &Arc<Account>, bytes: u64, watch: &Watch) -> Receiver<Answer> {
        let (keep, kept) = unbounded();
        account.claim(bytes, watch.clone(), move |answer| {
            drop(keep.send(answer));
        });
        account.set_bytes(bytes);
        account.set_standing(Standing::Loaded);
        kept
    }

    #[test]
    fn nobody_makes_room_for_a_load_that_is_not_wanted_any_more() {
        let (mut world, [idle, load]) = accounts(8, ["idle", "load"]);
        let (_lifeline, watch) = Lifeline::new();
        let _held = hold(&idle, 8, &watch);
        load.claim(8, watch, drop);
        for (wanted, makes_room) in [(false, false), (true, true)] {
            load.set_wanted(wanted);
            world.run_system_cached(arbitrate).expect("it runs");
            assert_eq!(idle.is_evicted(), makes_room);
        }
    }

    #[test]
    fn a_model_that_the_game_has_let_go_counts_as_room_on_its_way() {
        let (mut world, [pinned, idle, load]) = accounts(12, ["pinned", "idle", "load"]);
        let (_lifeline, watch) = Lifeline::new();
        let _held = [hold(&pinned, 8, &watch), hold(&idle, 4, &watch)];
        pinned.set_residency(true, 0);
        pinned.set_wanted(false);
        let (tell, told) = unbounded();
        load.claim(8, watch, move |answer| drop(tell.send(answer)));
        world.run_system_cached(arbitrate).expect("it runs");
        assert!(told.is_empty(), "it waits");
        assert!(!idle.is_evicted(), "nobody else goes");
        pinned.set_wanted(true);
        world.run_system_cached(arbitrate).expect("it runs");
        assert!(matches!(told.try_recv(), Ok(Answer::OverBudget(_))));
    }
}
