//! VMs that a state knows nothing of because it was emptied or lost.
//!
//! An id that the state does not know is nobody's and is cleared away; but a state that has
//! just begun knows nobody. What runs then is somebody's work, and the state may come back
//! from a backup: it is left as it is, under a mark in its directory that later starts see,
//! for as long as it runs.

use super::Daemon;
use crate::{Actor, Event, Result};

impl Daemon {
    /// Finds the VMs that are to be left alone.
    pub(super) fn spare_unknown(&self) -> Result<()> {
        let state = self.shared.state.borrow();
        let agents = state.agents()?.into_iter().filter_map(|row| row.machine);
        let sandboxes = state.sandboxes()?.into_iter().filter_map(|row| row.machine);
        let known: Vec<_> = agents.chain(sandboxes).collect();
        let vms = &self.vms;
        let mut spared = Vec::new();
        for id in vms.ids() {
            let is_spared = state.is_new() || vms.is_spared(&id);
            if is_spared && !known.contains(&id) && fireclaw_vm::is_marked(&id) {
                vms.spare(&id)?;
                spared.push(id);
            }
        }
        if state.is_new() && !spared.is_empty() {
            state.audit(&Actor::Overseer, &format!("spare {}", spared.join(" ")))?;
        }
        drop(state);
        if !spared.is_empty() {
            self.shared.tell(Event::Spared { sandboxes: spared.clone() });
        }
        *self.shared.unknown.borrow_mut() = spared;
        Ok(())
    }
}
