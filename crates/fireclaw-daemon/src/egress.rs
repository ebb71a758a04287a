//! The egress policy of agents: what their templates allow, and what people allow besides.

use fireclaw_net::Status;
use fireclaw_policy::{Network, Target};

use crate::question::{Asked, Question};
use crate::{Actor, Condition, Daemon, Error, Result};

/// The message of a question that is not the agent's but people's: theirs begin at 1.
pub const OURS: u64 = 0;

/// What is to be done, in a question.
const TOOL: &str = "reach";

/// The most such questions that are open at once for an agent.
const MOST: usize = 8;

impl Daemon {
    /// What an agent may reach, and what was refused; none if it has no network interface.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`]; [`Error::Network`] if it has no VM now.
    pub(crate) async fn network(&self, name: &str) -> Result<Option<Status>> {
        let row = self.row(name)?;
        if self.template(&row.template)?.network == Network::None {
            return Ok(None);
        }
        let Some(id) = row.machine else {
            let (name, condition) = (name.to_owned(), Condition::Starting);
            return Err(Error::NotNow { name, condition, problem: None });
        };
        Ok(Some(self.vms().gateway(&id).status().await?))
    }

    /// Asks the people whether an agent may reach more: the question, which is put to them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if its policy has no list, or for what is no target.
    pub(crate) fn ask_to_reach(&self, who: &Actor, name: &str, target: &str) -> Result<Question> {
        let row = self.row(name)?;
        let policy = self.shared().policy(name, &self.template(&row.template)?)?;
        let Network::Allow { allow, .. } = policy else {
            return Err(Error::Unsupported(format!(
                "{name} has network policy {policy}, which has no list of what is allowed; \
                 its template says so"
            )));
        };
        let target = Target::parse(target)
            .map_err(|problem| Error::Unsupported(format!("{target:?} {problem}")))?;
        if allow.contains(&target) {
            return Err(Error::Unsupported(format!("{name} may reach {target} already")));
        }
        let open = self.questions()?;
        let ours = |open: &&Question| open.agent == name && open.ask.message == OURS;
        if open.iter().filter(ours).count() >= MOST {
            return Err(Error::TooManyQuestions);
        }
        self.audit(who, &format!("asks that {name} may reach {target}"));
        let ask = Asked {
            message: OURS,
            tool: TOOL.into(),
            what: target.to_string(),
            asker: who.to_string(),
            conversation: self.config().control.clone(),
            private: false,
        };
        let question = self.shared().state.borrow_mut().ask(name, &ask)?;
        self.shared().put(&question);
        Ok(question)
    }

    /// Does what was granted.
    pub(crate) async fn reached(&self, question: &Question) -> Result<()> {
        let shared = self.shared();
        shared.state.borrow().forget(question.id)?;
        if !question.is_granted() {
            return Ok(());
        }
        let target = &question.ask.what;
        shared.state.borrow().allow(&question.agent, target)?;
        match self.row(&question.agent)?.machine {
            Some(id) => Ok(self.vms().gateway(&id).allow(target).await?),
            // The next one has it from the state.
            None => Ok(()),
        }
    }
}
