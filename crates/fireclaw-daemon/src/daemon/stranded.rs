//! Agents that could not be started again: their templates are gone, or have mistakes.
//!
//! They are listed and can be destroyed, or resumed once that is mended. A machine that
//! they have is left as it is until then.

use super::Daemon;
use crate::agent::{self, Condition, Status};
use crate::state::{AgentRow, Wanted};
use crate::{Actor, Error, Result};

impl Daemon {
    /// Notes that an agent could not be started again, and tells the people.
    pub(super) fn strand(&self, name: &str, problem: &Error) {
        let problem = problem.to_string();
        self.shared.announce(&format!(
            "{name} cannot be started again: {problem}. Mend that and !resume it, or !destroy it"
        ));
        self.shared.stranded.borrow_mut().insert(name.to_owned(), problem);
    }

    pub(super) fn is_stranded(&self, name: &str) -> bool {
        self.shared.stranded.borrow().contains_key(name)
    }

    pub(super) fn stranded_status(&self, row: &AgentRow) -> Option<Status> {
        let problem = self.shared.stranded.borrow().get(&row.name).cloned()?;
        Some(Status {
            condition: Condition::Failed,
            nick: row.nick.clone(),
            pid: None,
            restarts: 0,
            problem: Some(problem),
        })
    }

    pub(super) async fn destroy_stranded(&self, who: &Actor, name: &str) -> Result<()> {
        self.shared.state.borrow().want(name, Wanted::Gone)?;
        self.audit(who, &format!("destroy {name}"));
        agent::clear(&self.shared, name).await?;
        self.shared.state.borrow().remove(name)?;
        self.shared.stranded.borrow_mut().remove(name);
        Ok(())
    }

    pub(super) fn resume_stranded(&self, who: &Actor, name: &str) -> Result<()> {
        let template = self.shared.templates.get(&self.row(name)?.template)?;
        self.shared.state.borrow().want(name, Wanted::Running)?;
        self.audit(who, &format!("resume {name}"));
        self.start(self.row(name)?, template)?;
        self.shared.stranded.borrow_mut().remove(name);
        Ok(())
    }

    /// Why an agent cannot be told anything.
    pub(super) fn absent(&self, name: &str) -> Error {
        match self.shared.stranded.borrow().get(name) {
            None => self.unknown(name),
            Some(problem) => Error::NotNow {
                name: name.to_owned(),
                condition: Condition::Failed.as_str().to_owned(),
                hint: format!("{problem}; mend that and !resume it, or !destroy it"),
            },
        }
    }
}
