//! Named sandboxes.

use fireclaw_host::ProcessStamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{OptionalExtension, Row, params};

use super::{State, now};
use crate::sandbox_config::SandboxConfig;
use crate::{Error, Result};

/// What is wanted of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxWanted {
    /// Its VM runs.
    Running,
    /// It does not.
    Stopped,
    /// It is on its way out.
    Gone,
}

impl SandboxWanted {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
        }
    }
}

impl FromSql for SandboxWanted {
    /// A word that is not known is an error: taken for another it could remove a sandbox.
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Running, Self::Stopped, Self::Gone];
        let word = value.as_str()?;
        all.into_iter().find(|wanted| wanted.word() == word).ok_or(FromSqlError::InvalidType)
    }
}

/// A row of `sandboxes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxRow {
    /// What it is called now.
    pub name: String,
    /// What its directory is called, for ever.
    pub id: String,
    /// What it is made from.
    pub config: SandboxConfig,
    /// What is wanted of it.
    pub wanted: SandboxWanted,
    /// Its VM's id, from before the VM is made until it is gone.
    pub machine: Option<String>,
    /// Its VM's VMM, once it runs.
    pub process: Option<ProcessStamp>,
    /// The exit status of its program, the last time that it ended.
    pub status: Option<u8>,
    /// What was wrong last.
    pub problem: Option<String>,
    /// How often it was started again by itself since somebody started it.
    pub restarts: u32,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// When its VM was last started.
    pub started: Option<i64>,
    /// When that ended.
    pub ended: Option<i64>,
}

impl State {
    /// All sandboxes by name.
    pub fn sandboxes(&self) -> Result<Vec<SandboxRow>> {
        let mut query = self.db.prepare_cached("SELECT * FROM sandboxes ORDER BY name")?;
        let rows = query.query_map([], sandbox_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// One of them.
    pub fn sandbox(&self, id: &str) -> Result<Option<SandboxRow>> {
        let mut query = self.db.prepare_cached("SELECT * FROM sandboxes WHERE id = ?1")?;
        Ok(query.query_row([id], sandbox_row).optional()?)
    }

    /// A new sandbox.
    ///
    /// # Errors
    /// [`Error::NameTaken`], also if an agent has the name.
    pub fn add_sandbox(&mut self, row: &SandboxRow) -> Result<()> {
        let taken = || Error::NameTaken { name: row.name.clone() };
        if self.agent(&row.name)?.is_some() {
            return Err(taken());
        }
        let config = serde_json::to_string(&row.config).unwrap_or_default();
        let added = self.db.execute(
            "INSERT INTO sandboxes (name, id, config, wanted, created)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
            params![row.name, row.id, config, row.wanted.word(), row.created],
        )?;
        if added == 0 { Err(taken()) } else { Ok(()) }
    }

    /// Forgets a sandbox.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.db.execute("DELETE FROM sandboxes WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Calls a sandbox something else.
    ///
    /// # Errors
    /// As [`State::add_sandbox`].
    pub fn rename_sandbox(&self, id: &str, name: &str) -> Result<()> {
        let taken = || Error::NameTaken { name: name.to_owned() };
        if self.agent(name)?.is_some() {
            return Err(taken());
        }
        let set = "UPDATE OR IGNORE sandboxes SET name = ?2 WHERE id = ?1";
        if self.db.execute(set, params![id, name])? == 0 { Err(taken()) } else { Ok(()) }
    }

    /// Notes what is wanted of a sandbox.
    pub fn want_sandbox(&self, id: &str, wanted: SandboxWanted) -> Result<()> {
        let set = "UPDATE sandboxes SET wanted = ?2 WHERE id = ?1";
        self.db.execute(set, params![id, wanted.word()])?;
        Ok(())
    }

    /// Notes the VM that a sandbox is about to have.
    pub fn sandbox_starts(&self, id: &str, machine: &str) -> Result<()> {
        self.db.execute(
            "UPDATE sandboxes SET machine = ?2, pid = NULL, start_time = NULL, started = ?3,
                 ended = NULL, status = NULL, problem = NULL WHERE id = ?1",
            params![id, machine, now()],
        )?;
        Ok(())
    }

    /// Notes the VMM of a sandbox's VM.
    pub fn sandbox_runs(&self, id: &str, process: ProcessStamp) -> Result<()> {
        // SQLite's integers are signed; ticks since boot fit for 10^9 years.
        let start_time = i64::try_from(process.start_time).unwrap_or(i64::MAX);
        let set = "UPDATE sandboxes SET pid = ?2, start_time = ?3 WHERE id = ?1";
        self.db.execute(set, params![id, process.pid, start_time])?;
        Ok(())
    }

    /// Notes how a sandbox ended.
    pub fn sandbox_ended(&self, id: &str, status: Option<u8>, problem: Option<&str>) -> Result<()> {
        self.db.execute(
            "UPDATE sandboxes SET status = ?2, problem = ?3, ended = ?4 WHERE id = ?1",
            params![id, status, problem, now()],
        )?;
        Ok(())
    }

    /// Notes that a sandbox has no VM any more.
    pub fn sandbox_cleared(&self, id: &str) -> Result<()> {
        self.db.execute(
            "UPDATE sandboxes SET machine = NULL, pid = NULL, start_time = NULL WHERE id = ?1",
            [id],
        )?;
        Ok(())
    }

    /// Notes how often a sandbox was started again by itself.
    pub fn set_restarts(&self, id: &str, restarts: u32) -> Result<()> {
        let set = "UPDATE sandboxes SET restarts = ?2 WHERE id = ?1";
        self.db.execute(set, params![id, restarts])?;
        Ok(())
    }
}

fn sandbox_row(row: &Row<'_>) -> rusqlite::Result<SandboxRow> {
    let config: String = row.get("config")?;
    let config = serde_json::from_str(&config).map_err(|e| {
        let column = row.as_ref().column_index("config").unwrap_or_default();
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, e.into())
    })?;
    let pid: Option<i32> = row.get("pid")?;
    let start_time: Option<i64> = row.get("start_time")?;
    Ok(SandboxRow {
        name: row.get("name")?,
        id: row.get("id")?,
        config,
        wanted: row.get("wanted")?,
        machine: row.get("machine")?,
        process: pid
            .zip(start_time)
            .map(|(pid, start)| ProcessStamp { pid, start_time: start.unsigned_abs() }),
        status: row.get("status")?,
        problem: row.get("problem")?,
        restarts: row.get("restarts")?,
        created: row.get("created")?,
        started: row.get("started")?,
        ended: row.get("ended")?,
    })
}
