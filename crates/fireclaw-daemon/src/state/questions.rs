//! Questions to the people, and their answers.

use rusqlite::{OptionalExtension, Row, params};

use super::{State, now, number};
use crate::Result;
use crate::question::{Asked, Question};

impl State {
    /// Forgets a question.
    pub fn forget(&self, question: u64) -> Result<()> {
        self.db.execute("DELETE FROM approvals WHERE id = ?1", [key(question)])?;
        Ok(())
    }

    /// The question whether a tool may be used for a message: the one that was asked
    /// before, also before a restart, or a new one. A leave that was given is used up by
    /// this: it is for one time.
    pub fn ask(&mut self, agent: &str, ask: &Asked) -> Result<Question> {
        let message = key(ask.message);
        let transaction = self.db.transaction()?;
        let known = transaction
            .query_row(
                "SELECT * FROM approvals
                 WHERE agent = ?1 AND message = ?2 AND tool = ?3 AND what = ?4",
                params![agent, message, ask.tool, ask.what],
                question,
            )
            .optional()?;
        if let Some(known) = known {
            if known.is_granted() {
                transaction.execute("DELETE FROM approvals WHERE id = ?1", [key(known.id)])?;
                transaction.commit()?;
            }
            return Ok(known);
        }
        transaction.execute(
            "INSERT INTO approvals (agent, message, tool, what, asker, place, private, asked)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                agent,
                message,
                ask.tool,
                ask.what,
                ask.asker,
                ask.conversation,
                ask.private,
                now()
            ],
        )?;
        let id = transaction.last_insert_rowid();
        let row = transaction.query_row("SELECT * FROM approvals WHERE id = ?1", [id], question)?;
        transaction.commit()?;
        Ok(row)
    }

    /// A question, if there is one that was not answered.
    pub fn open_question(&self, id: u64) -> Result<Option<Question>> {
        let mut query =
            self.db.prepare_cached("SELECT * FROM approvals WHERE id = ?1 AND verdict IS NULL")?;
        Ok(query.query_row([key(id)], question).optional()?)
    }

    /// People can read a question from now on.
    pub fn was_said(&self, id: u64) -> Result<()> {
        let set = "UPDATE approvals SET said = ?2 WHERE id = ?1 AND verdict IS NULL";
        self.db.execute(set, params![key(id), now()])?;
        Ok(())
    }

    /// Answers a question; the question, if there is one that was not answered.
    pub fn answer(&self, id: u64, granted: bool, reason: &str) -> Result<Option<Question>> {
        let verdict = if granted { "granted" } else { "refused" };
        let changed = self.db.execute(
            "UPDATE approvals SET verdict = ?2, reason = ?3 WHERE id = ?1 AND verdict IS NULL",
            params![key(id), verdict, reason],
        )?;
        if changed == 0 {
            return Ok(None);
        }
        let mut query = self.db.prepare_cached("SELECT * FROM approvals WHERE id = ?1")?;
        Ok(query.query_row([key(id)], question).optional()?)
    }

    /// Questions without an answer, oldest first.
    pub fn open_questions(&self) -> Result<Vec<Question>> {
        let mut query =
            self.db.prepare_cached("SELECT * FROM approvals WHERE verdict IS NULL ORDER BY id")?;
        let rows = query.query_map([], question)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// A number as SQLite has it; none is negative.
fn key(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(-1)
}

fn question(row: &Row<'_>) -> rusqlite::Result<Question> {
    let verdict: Option<String> = row.get("verdict")?;
    let reason: Option<String> = row.get("reason")?;
    Ok(Question {
        id: number(row, "id")?,
        agent: row.get("agent")?,
        ask: Asked {
            message: number(row, "message")?,
            tool: row.get("tool")?,
            what: row.get("what")?,
            asker: row.get("asker")?,
            conversation: row.get("place")?,
            private: row.get("private")?,
        },
        verdict: verdict.map(|word| (word == "granted", reason.unwrap_or_default())),
        asked: row.get("asked")?,
        said: row.get("said")?,
    })
}
