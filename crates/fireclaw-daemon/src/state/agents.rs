//! Agents, their channels, and what they may reach besides their templates' policies.

use fireclaw_host::ProcessStamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{OptionalExtension, Row, params};

use super::{State, now};
use crate::{Error, Result};

/// What is wanted of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its VM runs.
    Running,
    /// Its VM is stopped where it is.
    Paused,
    /// It is on its way out.
    Gone,
}

impl Wanted {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Gone => "gone",
        }
    }
}

impl FromSql for Wanted {
    /// A word that is not known is an error: taken for another it could end an agent.
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Running, Self::Paused, Self::Gone];
        let word = value.as_str()?;
        all.into_iter().find(|wanted| wanted.word() == word).ok_or(FromSqlError::InvalidType)
    }
}

/// A row of `agents`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its name.
    pub name: String,
    /// The name of its template.
    pub template: String,
    /// The nick that it asks for.
    pub nick: String,
    /// A model instead of the template's.
    pub model: Option<String>,
    /// A persona instead of the template's.
    pub persona: Option<String>,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// Its VM's id, from before the VM is made until it is gone.
    pub machine: Option<String>,
    /// Its VM's VMM, once it runs.
    pub process: Option<ProcessStamp>,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// When it is to be destroyed, if ever.
    pub ends: Option<i64>,
}

impl State {
    /// All agents by name.
    pub fn agents(&self) -> Result<Vec<AgentRow>> {
        let mut query = self.db.prepare_cached("SELECT * FROM agents ORDER BY name")?;
        let rows = query.query_map([], agent_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// One agent.
    pub fn agent(&self, name: &str) -> Result<Option<AgentRow>> {
        let mut query = self.db.prepare_cached("SELECT * FROM agents WHERE name = ?1")?;
        Ok(query.query_row([name], agent_row).optional()?)
    }

    /// A new agent, with the channels that it is in.
    ///
    /// # Errors
    /// [`Error::NameTaken`] if the name or the nick is, also if a sandbox has the name.
    pub fn add(&mut self, agent: &AgentRow, channels: &[String]) -> Result<()> {
        let transaction = self.db.transaction()?;
        let find = "SELECT EXISTS (SELECT 1 FROM sandboxes WHERE name = ?1)";
        if transaction.query_row(find, [&agent.name], |row| row.get(0))? {
            return Err(Error::NameTaken { name: agent.name.clone() });
        }
        let added = transaction.execute(
            "INSERT INTO agents (name, template, nick, model, wanted, created, ends)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            params![
                agent.name,
                agent.template,
                agent.nick,
                agent.model,
                agent.wanted.word(),
                agent.created,
                agent.ends
            ],
        )?;
        if added == 0 {
            return Err(Error::NameTaken { name: agent.name.clone() });
        }
        for channel in channels {
            transaction
                .execute("INSERT INTO channels VALUES (?1, ?2)", params![agent.name, channel])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Forgets an agent and all that belongs to it.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.db.execute("DELETE FROM agents WHERE name = ?1", [name])?;
        Ok(())
    }

    /// Notes what is wanted of an agent.
    pub fn want(&self, name: &str, wanted: Wanted) -> Result<()> {
        let set = "UPDATE agents SET wanted = ?2 WHERE name = ?1";
        self.db.execute(set, params![name, wanted.word()])?;
        Ok(())
    }

    /// Gives an agent another model.
    pub fn set_model(&self, name: &str, model: &str) -> Result<()> {
        self.db.execute("UPDATE agents SET model = ?2 WHERE name = ?1", params![name, model])?;
        Ok(())
    }

    /// Gives an agent its template's model and persona again.
    pub fn reset(&self, name: &str) -> Result<()> {
        let set = "UPDATE agents SET model = NULL, persona = NULL WHERE name = ?1";
        self.db.execute(set, [name])?;
        Ok(())
    }

    /// Notes that an agent that came by a schedule has no more to do.
    pub fn end_now(&self, name: &str) -> Result<()> {
        let set = "UPDATE agents SET ends = ?2 WHERE name = ?1 AND ends > ?2";
        self.db.execute(set, params![name, now()])?;
        Ok(())
    }

    /// Gives an agent another persona.
    pub fn set_persona(&self, name: &str, persona: &str) -> Result<()> {
        self.db
            .execute("UPDATE agents SET persona = ?2 WHERE name = ?1", params![name, persona])?;
        Ok(())
    }

    /// Notes the VM that an agent is about to have, or that it has none.
    pub fn set_machine(&self, name: &str, machine: Option<&str>) -> Result<()> {
        self.db.execute(
            "UPDATE agents SET machine = ?2, pid = NULL, start_time = NULL WHERE name = ?1",
            params![name, machine],
        )?;
        Ok(())
    }

    /// Notes the VMM of an agent's VM.
    pub fn set_process(&self, name: &str, process: ProcessStamp) -> Result<()> {
        // SQLite's integers are signed; ticks since boot fit for 10^9 years.
        let start_time = i64::try_from(process.start_time).unwrap_or(i64::MAX);
        self.db.execute(
            "UPDATE agents SET pid = ?2, start_time = ?3 WHERE name = ?1",
            params![name, process.pid, start_time],
        )?;
        Ok(())
    }

    /// The channels that an agent is in.
    pub fn channels(&self, name: &str) -> Result<Vec<String>> {
        let mut query =
            self.db.prepare_cached("SELECT channel FROM channels WHERE agent = ?1 ORDER BY 1")?;
        let rows = query.query_map([name], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Notes that an agent joined a channel.
    pub fn join(&self, name: &str, channel: &str) -> Result<()> {
        self.db
            .execute("INSERT OR IGNORE INTO channels VALUES (?1, ?2)", params![name, channel])?;
        Ok(())
    }

    /// Notes that an agent left a channel.
    pub fn leave(&self, name: &str, channel: &str) -> Result<()> {
        self.db.execute(
            "DELETE FROM channels WHERE agent = ?1 AND channel = ?2",
            params![name, channel],
        )?;
        Ok(())
    }

    /// What an agent may reach besides its template's policy.
    pub fn allowed(&self, agent: &str) -> Result<Vec<String>> {
        let mut query =
            self.db.prepare_cached("SELECT target FROM allowed WHERE agent = ?1 ORDER BY 1")?;
        let rows = query.query_map([agent], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Lets an agent reach more.
    pub fn allow(&self, agent: &str, target: &str) -> Result<()> {
        let insert = "INSERT OR IGNORE INTO allowed VALUES (?1, ?2)";
        self.db.execute(insert, params![agent, target])?;
        Ok(())
    }
}

fn agent_row(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    let pid: Option<i32> = row.get("pid")?;
    let start_time: Option<i64> = row.get("start_time")?;
    Ok(AgentRow {
        name: row.get("name")?,
        template: row.get("template")?,
        nick: row.get("nick")?,
        model: row.get("model")?,
        persona: row.get("persona")?,
        wanted: row.get("wanted")?,
        machine: row.get("machine")?,
        process: pid
            .zip(start_time)
            .map(|(pid, start)| ProcessStamp { pid, start_time: start.unsigned_abs() }),
        created: row.get("created")?,
        ends: row.get("ends")?,
    })
}
