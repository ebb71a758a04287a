//! Messages that agents have yet to deal with.

use fireclaw_protocol::agent::Said;
use rusqlite::params;

use super::{State, number};
use crate::Result;

/// A message that an agent has yet to deal with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Rises with time; given by the state.
    pub id: u64,
    /// A channel, or the nick of who spoke in private.
    pub conversation: String,
    /// Whether it was said in private.
    pub private: bool,
    /// Who spoke.
    pub sender: String,
    /// Whether that is an agent.
    pub from_agent: bool,
    /// Through how many agents it has come.
    pub hops: u32,
    /// What was said.
    pub text: String,
    /// What was said before.
    pub recent: Vec<Said>,
}

impl Pending {
    /// Who sent it may be called something else now.
    pub fn rename_sender(&mut self, from: &str, to: &str) {
        if self.sender != from || self.from_agent {
            return;
        }
        to.clone_into(&mut self.sender);
        if self.private && self.conversation == from {
            to.clone_into(&mut self.conversation);
        }
    }

    /// Whether somebody said it in a conversation; anywhere if that is absent.
    pub fn is_of(&self, sender: &str, conversation: Option<&str>) -> bool {
        // Said to some members of a channel, as `@#channel`, it was said in the channel.
        let bare = self.conversation.trim_start_matches(['~', '&', '@', '%', '+']);
        self.sender == sender
            && conversation.is_none_or(|conversation| {
                conversation == self.conversation || conversation == bare
            })
    }
}

impl State {
    /// Keeps a message until it has been dealt with; its number.
    pub fn keep(&self, agent: &str, message: &Pending) -> Result<u64> {
        let recent = serde_json::to_string(&message.recent).unwrap_or_default();
        self.db.execute(
            "INSERT INTO messages (agent, place, private, sender, from_agent, hops, text, recent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                agent,
                message.conversation,
                message.private,
                message.sender,
                message.from_agent,
                message.hops,
                message.text,
                recent
            ],
        )?;
        Ok(self.db.last_insert_rowid().unsigned_abs())
    }

    /// What an agent has yet to deal with, oldest first.
    pub fn pending(&self, agent: &str) -> Result<Vec<Pending>> {
        let mut query =
            self.db.prepare_cached("SELECT * FROM messages WHERE agent = ?1 ORDER BY id")?;
        let rows = query.query_map([agent], |row| {
            let recent: String = row.get("recent")?;
            Ok(Pending {
                id: number(row, "id")?,
                conversation: row.get("place")?,
                private: row.get("private")?,
                sender: row.get("sender")?,
                from_agent: row.get("from_agent")?,
                hops: row.get("hops")?,
                text: row.get("text")?,
                recent: serde_json::from_str(&recent).unwrap_or_default(),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Who sent messages that an agent has yet to deal with is called something else: an
    /// answer must not reach whoever takes the nick next.
    pub fn rename_sender(&self, agent: &str, from: &str, to: &str) -> Result<()> {
        self.db.execute(
            "UPDATE messages SET place = iif(private AND place = ?2, ?3, place), sender = ?3
             WHERE agent = ?1 AND sender = ?2 AND NOT from_agent",
            params![agent, from, to],
        )?;
        self.db.execute(
            "UPDATE approvals SET place = iif(private AND place = ?2, ?3, place), asker = ?3
             WHERE agent = ?1 AND asker = ?2",
            params![agent, from, to],
        )?;
        Ok(())
    }

    /// A message has been dealt with; the questions that were open for it, which are gone.
    pub fn done(&mut self, agent: &str, message: u64) -> Result<Vec<u64>> {
        let transaction = self.db.transaction()?;
        let id = i64::try_from(message).unwrap_or(-1);
        transaction
            .execute("DELETE FROM messages WHERE agent = ?1 AND id = ?2", params![agent, id])?;
        let gone = transaction
            .prepare_cached(
                "DELETE FROM approvals WHERE agent = ?1 AND message = ?2 RETURNING id, verdict",
            )?
            .query_map(params![agent, id], |row| {
                let verdict: Option<String> = row.get("verdict")?;
                Ok(verdict.is_none().then_some(number(row, "id")?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        Ok(gone.into_iter().flatten().collect())
    }
}
