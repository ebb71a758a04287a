//! Machines that a state knows nothing of because it was emptied or lost.
//!
//! An id that the state does not know is nobody's and is cleared away; but a state that has
//! just begun knows nobody. What runs then is somebody's work, and the state may come back
//! from a backup: it is left as it is, under a mark in its directory that later starts see,
//! for as long as it runs.

use super::Daemon;
use crate::{Actor, Result};

impl Daemon {
    /// Finds the machines that are to be left alone.
    pub(super) fn spare_unknown(&self) -> Result<()> {
        let state = self.shared.state.borrow();
        let known: Vec<_> = state.agents()?.into_iter().filter_map(|row| row.machine).collect();
        let machines = &self.shared.machines;
        let mut spared = Vec::new();
        for id in machines.ids() {
            let is_spared = state.is_new() || machines.is_spared(&id);
            if is_spared && !known.contains(&id) && fireclaw_vm::is_marked(&id) {
                machines.spare(&id)?;
                spared.push(id);
            }
        }
        if state.is_new() && !spared.is_empty() {
            state.audit(&Actor::Overseer, &format!("spare {}", spared.join(" ")))?;
        }
        drop(state);
        if let Some(text) = told(&spared) {
            self.shared.announce(&text);
        }
        *self.shared.unknown.borrow_mut() = spared;
        Ok(())
    }

    /// What people should know of machines that the state does not know.
    pub fn unknown_machines(&self) -> Option<String> {
        told(&self.shared.unknown.borrow())
    }
}

fn told(ids: &[String]) -> Option<String> {
    let (first, count) = (ids.first()?, ids.len());
    Some(format!(
        "{count} machine(s) run that the state does not know: was state.db emptied or lost? They \
         are left as they are. End the overseer and restore state.db from a backup to have them \
         back; or end one with: kill $(pgrep -f {first})"
    ))
}
