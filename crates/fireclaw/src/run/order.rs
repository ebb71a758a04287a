//! What is to be run, and on what.

use std::time::Duration;

use fireclaw_image::Home;
use fireclaw_vm::snapshot::Recipe;
use fireclaw_vm::{Guest, Launcher};

use crate::error::Result;
use crate::machine;
use crate::phases::Phases;

/// What all clones of one run have in common.
#[derive(Debug)]
pub struct Order<'a> {
    /// Where snapshots and pools are.
    pub home: &'a Home,
    /// The machine.
    pub recipe: &'a Recipe,
    /// What starts it.
    pub launcher: &'a Launcher,
    /// Whether neither pool nor snapshot may be used.
    pub from_cold: bool,
    /// How long the command may take.
    pub timeout: Duration,
}

impl Order<'_> {
    /// Starts a machine.
    pub async fn start(&self, phases: &mut Phases) -> Result<Guest> {
        if self.from_cold {
            machine::cold(self.launcher, phases).await
        } else {
            machine::start(self.launcher, self.home, self.recipe, phases).await
        }
    }
}
