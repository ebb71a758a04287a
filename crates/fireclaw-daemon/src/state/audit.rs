//! Privileged acts.

use rusqlite::params;
use serde::Serialize;

use super::{State, now};
use crate::{Actor, Result};

/// A privileged act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Act {
    /// When it was done: seconds since the epoch.
    pub time: i64,
    /// Who did it: a nick, a user of this host, or the schedule.
    pub who: String,
    /// The account that the chat server proved.
    pub account: Option<String>,
    /// The user and host that the chat server showed.
    pub host: Option<String>,
    /// What was done.
    pub act: String,
}

impl State {
    /// Writes a privileged act down.
    pub fn audit(&self, who: &Actor, act: &str) -> Result<()> {
        self.db.execute(
            "INSERT INTO audit (time, who, account, host, act) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![now(), who.to_string(), who.account(), who.host(), act],
        )?;
        Ok(())
    }

    /// The last privileged acts, newest last.
    pub fn audited(&self, most: u32) -> Result<Vec<Act>> {
        let mut query = self.db.prepare_cached(
            "SELECT * FROM (SELECT rowid AS n, * FROM audit ORDER BY n DESC LIMIT ?1) ORDER BY n",
        )?;
        let rows = query.query_map([most], |row| {
            Ok(Act {
                time: row.get("time")?,
                who: row.get("who")?,
                account: row.get("account")?,
                host: row.get("host")?,
                act: row.get("act")?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
