//! Agents that failed to restore: their templates are gone, or have mistakes.
//!
//! They are listed and can be destroyed, or resumed once that is mended. A VM that they have
//! is left as it is until then.

use super::{Daemon, Known};
use crate::agent;
use crate::state::Wanted;
use crate::{Actor, Error, Event, Result};

impl Daemon {
    /// Notes that an agent failed to restore, and tells the people.
    pub(super) fn fail_to_restore(&self, name: &str, problem: &Error) {
        let problem = problem.to_string();
        let (agent, told) = (name.to_owned(), problem.clone());
        self.shared.tell(Event::FailedToRestore { agent, problem: told });
        self.agents.borrow_mut().insert(name.to_owned(), Known::Unrestored(problem));
    }

    pub(super) fn is_unrestored(&self, name: &str) -> bool {
        matches!(self.agents.borrow().get(name), Some(Known::Unrestored(_)))
    }

    pub(super) async fn destroy_unrestored(&self, who: &Actor, name: &str) -> Result<()> {
        self.note_end(who, name)?;
        agent::clear(&self.shared, name).await?;
        self.shared.state.borrow().remove(name)?;
        self.agents.borrow_mut().remove(name);
        Ok(())
    }

    pub(super) fn resume_unrestored(&self, who: &Actor, name: &str) -> Result<()> {
        let template = self.shared.templates.get(&self.row(name)?.template)?;
        self.shared.state.borrow().want(name, Wanted::Running)?;
        self.audit(who, &format!("resume {name}"));
        self.start(self.row(name)?, template)
    }
}
