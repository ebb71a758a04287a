//! Questions to the people: how they are put, answered and ended.

use std::convert::Infallible;
use std::time::Duration;

use crate::agent::Order;
use crate::egress;
use crate::question::Question;
use crate::state::now;
use crate::{Actor, Daemon, Error, Event, Result};

/// Why a question was refused that nobody answered.
const IN_TIME: &str = "nobody answered in time";

/// What times are written down in.
const GRAIN: Duration = Duration::from_secs(1);

impl Daemon {
    /// Allows what a question asks for. `digest` is the question's, as people read it; it may
    /// be left out while only one is open.
    ///
    /// # Errors
    /// [`Error::NoQuestion`], [`Error::Unconfirmed`].
    pub(crate) async fn grant(
        &self,
        who: &Actor,
        id: u64,
        digest: Option<&str>,
    ) -> Result<Question> {
        let open = self.questions()?;
        let found = open.iter().find(|question| question.id == id);
        let question = found.ok_or(Error::NoQuestion(id))?;
        let problem = match digest {
            Some(digest) if digest.eq_ignore_ascii_case(&question.digest()) => None,
            Some(_) => Some("it asks for something else than what was allowed"),
            None if open.len() > 1 => Some("several questions are open; repeat its letters"),
            None => None,
        };
        if let Some(problem) = problem {
            return Err(Error::Unconfirmed { question: Box::new(question.clone()), problem });
        }
        self.answer(who, id, true, "").await
    }

    /// Refuses what a question asks for.
    ///
    /// # Errors
    /// [`Error::NoQuestion`].
    pub(crate) async fn refuse(&self, who: &Actor, id: u64, reason: &str) -> Result<Question> {
        self.answer(who, id, false, reason).await
    }

    async fn answer(&self, who: &Actor, id: u64, granted: bool, reason: &str) -> Result<Question> {
        let said = if reason.is_empty() { who.to_string() } else { format!("{who}: {reason}") };
        let answered = self.shared().state.borrow().answer(id, granted, &said)?;
        let question = answered.ok_or(Error::NoQuestion(id))?;
        let (word, ask) = (if granted { "ok" } else { "no" }, &question.ask);
        self.audit(who, &format!("{word} #{id} {}: {}", ask.tool, ask.what));
        self.ended(&question).await?;
        Ok(question)
    }

    /// Has everything that waits for an answer take it.
    async fn ended(&self, question: &Question) -> Result<()> {
        self.take_egress(question).await?;
        // An agent that is just starting asks again and is answered from the state.
        if let Ok(orders) = self.orders(&question.agent) {
            let _ = orders.send(Order::Answered(Box::new(question.clone()))).await;
        }
        Ok(())
    }

    /// People can read a question from now on: the time to answer it begins.
    ///
    /// # Errors
    /// [`Error::State`].
    pub fn question_said(&self, id: u64) -> Result<()> {
        self.shared().state.borrow().was_said(id)?;
        self.shared().asked.notify_one();
        Ok(())
    }

    /// Whether a question waits for an answer.
    pub fn is_open(&self, id: u64) -> bool {
        matches!(self.shared().state.borrow().open_question(id), Ok(Some(_)))
    }

    /// Questions that wait for an answer.
    pub fn questions(&self) -> Result<Vec<Question>> {
        self.shared().state.borrow().open_questions()
    }

    /// Ends questions by the clock, until dropped.
    pub(crate) async fn end_questions(&self) -> Infallible {
        loop {
            if let Err(e) = self.end_old_questions().await {
                self.shared().trouble(format!("questions: {e}"));
            }
            let left = self.next_old_question();
            tokio::select! {
                // What could not be ended is not tried again in a circle.
                () = tokio::time::sleep(left.unwrap_or(Duration::MAX).max(GRAIN)) => {}
                () = self.shared().asked.notified() => {}
            }
        }
    }

    /// Refuses questions that nobody answered in time, whether their agents run or not.
    async fn end_old_questions(&self) -> Result<()> {
        for question in self.questions()? {
            if self.time_left(&question).is_none_or(|left| !left.is_zero()) {
                continue;
            }
            let ended = self.shared().state.borrow().answer(question.id, false, IN_TIME)?;
            let Some(question) = ended else { continue };
            let (id, agent) = (question.id, question.agent.clone());
            self.shared().tell(Event::QuestionExpired { id, agent });
            self.ended(&question).await?;
        }
        Ok(())
    }

    /// When the next question's time is up.
    fn next_old_question(&self) -> Option<Duration> {
        let open = self.questions().unwrap_or_default();
        open.iter().filter_map(|question| self.time_left(question)).min()
    }

    /// How long a question may still wait; none if nobody could read it yet.
    fn time_left(&self, question: &Question) -> Option<Duration> {
        let waited = Duration::from_secs(u64::try_from(now() - question.said?).unwrap_or(0));
        // The time that was promised is whole.
        let limit = self.config().approval_time + GRAIN;
        Some(limit.saturating_sub(waited))
    }

    /// Does what was granted, if the question was about the network.
    async fn take_egress(&self, question: &Question) -> Result<()> {
        match question.ask.message {
            egress::OURS => self.reached(question).await,
            _ => Ok(()),
        }
    }
}
