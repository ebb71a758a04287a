//! The tables, made and changed in steps: forward only, one for each version.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fireclaw_host::PathError;
use rusqlite::{Connection, Transaction};

use super::now;
use crate::{Error, Result};

/// A change of the tables to the version of its place, counted from 1, in SQLite's
/// `user_version`. A released one is never edited.
type Step = fn(&Transaction<'_>) -> rusqlite::Result<()>;

/// All of them.
const STEPS: [Step; 4] = [begin, allowed, askers, sandboxes];

/// The present version.
#[cfg(test)]
pub(super) const VERSION: usize = STEPS.len();

fn begin(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute_batch(
        "
CREATE TABLE agents (
    name        TEXT PRIMARY KEY,
    template    TEXT NOT NULL,
    nick        TEXT NOT NULL UNIQUE,
    model       TEXT,               -- instead of the template's
    persona     TEXT,               -- instead of the template's
    wanted      TEXT NOT NULL CHECK (wanted IN ('running', 'paused', 'gone')),
    machine     TEXT UNIQUE,        -- the id of its directory and the mark of its VMM
    pid         INTEGER,
    start_time  INTEGER,
    created     INTEGER NOT NULL,
    ends        INTEGER             -- when it is to be destroyed, if it came by a schedule
) STRICT;
CREATE TABLE channels (
    agent       TEXT NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
    channel     TEXT NOT NULL,
    PRIMARY KEY (agent, channel)
) STRICT;
CREATE TABLE messages (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    agent       TEXT NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
    place       TEXT NOT NULL,
    private     INTEGER NOT NULL,
    sender      TEXT NOT NULL,
    from_agent  INTEGER NOT NULL,
    hops        INTEGER NOT NULL,
    text        TEXT NOT NULL,
    recent      TEXT NOT NULL
) STRICT;
CREATE TABLE approvals (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    agent       TEXT NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
    message     INTEGER NOT NULL,
    tool        TEXT NOT NULL,
    what        TEXT NOT NULL,
    verdict     TEXT CHECK (verdict IN ('granted', 'refused')),
    reason      TEXT,
    asked       INTEGER NOT NULL
) STRICT;
CREATE TABLE audit (
    time        INTEGER NOT NULL,
    who         TEXT NOT NULL,
    act         TEXT NOT NULL
) STRICT;
",
    )?;
    // A workspace outlives the state, and remembers by number what it has answered:
    // a state that was made later begins with higher ones.
    let first = now().saturating_mul(MESSAGES_A_SECOND);
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?1)", [first])?;
    Ok(())
}

/// More messages than a daemon takes in a second, over all the time of a state.
const MESSAGES_A_SECOND: i64 = 1000;

fn allowed(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute_batch(
        "
CREATE TABLE allowed (              -- what people let an agent reach besides its template's policy
    agent       TEXT NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
    target      TEXT NOT NULL,
    PRIMARY KEY (agent, target)
) STRICT;
",
    )
}

/// A question knows who caused it, where, and when people could read it; an act by whom it
/// was done, as the chat server proved it.
fn askers(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute_batch(
        "
ALTER TABLE approvals ADD COLUMN asker TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN place TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN private INTEGER NOT NULL DEFAULT 0;
ALTER TABLE approvals ADD COLUMN said INTEGER;
ALTER TABLE audit ADD COLUMN account TEXT;
ALTER TABLE audit ADD COLUMN host TEXT;
",
    )
}

/// Sandboxes that have a name.
fn sandboxes(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute_batch(
        "
CREATE TABLE sandboxes (
    name        TEXT PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,   -- of its directory, and of its image's pin
    config      TEXT NOT NULL,          -- JSON
    wanted      TEXT NOT NULL CHECK (wanted IN ('running', 'stopped', 'gone')),
    machine     TEXT UNIQUE,            -- as in agents
    pid         INTEGER,
    start_time  INTEGER,
    status      INTEGER,                -- of its program, the last time that it ended
    problem     TEXT,
    restarts    INTEGER NOT NULL DEFAULT 0,
    created     INTEGER NOT NULL,
    started     INTEGER,
    ended       INTEGER
) STRICT;
",
    )
}

/// Brings a state to the present version; the one that it had, 0 if it is new. What was
/// there before is kept beside it, as `state.db.v2` for one of version 2.
///
/// # Errors
/// [`Error::NewerState`] for a version that is not known.
pub(super) fn migrate(db: &mut Connection, path: &Path) -> Result<usize> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = usize::try_from(version).ok().filter(|version| *version <= STEPS.len());
    let Some(before) = known else {
        return Err(Error::NewerState { path: path.to_owned(), version, known: STEPS.len() });
    };
    if before == STEPS.len() {
        return Ok(before);
    }
    if before > 0 {
        back_up(db, &kept(path, before))?;
    }
    let transaction = db.transaction()?;
    for step in &STEPS[before..] {
        step(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", STEPS.len())?;
    transaction.commit()?;
    Ok(before)
}

/// Where a state of an earlier version is kept.
pub(super) fn kept(path: &Path, version: usize) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".v{version}"));
    name.into()
}

/// Writes all of a state to another file, which is whole when it has its name.
fn back_up(db: &Connection, to: &Path) -> Result<()> {
    let mut fresh = OsString::from(to);
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let _ = std::fs::remove_file(&fresh);
    db.execute("VACUUM INTO ?1", [fresh.to_string_lossy()])?;
    Ok(std::fs::rename(&fresh, to).map_err(PathError::at("create", to))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    /// A state as the program of that version left it, with an agent and a question.
    fn of_version(path: &Path, version: usize) {
        let mut db = Connection::open(path).unwrap();
        let transaction = db.transaction().unwrap();
        for step in &STEPS[..version] {
            step(&transaction).unwrap();
        }
        transaction.pragma_update(None, "user_version", version).unwrap();
        transaction.commit().unwrap();
        db.execute_batch(
            "INSERT INTO agents (name, template, nick, wanted, created)
                 VALUES ('worker', 'worker', 'worker', 'running', 7);
             INSERT INTO approvals (agent, message, tool, what, asked)
                 VALUES ('worker', 1, 'run_command', 'true', 8);
             INSERT INTO audit (time, who, act) VALUES (9, 'ann', 'invoke worker');",
        )
        .unwrap();
    }

    #[test]
    fn a_state_of_each_earlier_version_is_taken_on_and_kept() {
        for version in 1..VERSION {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("state.db");
            of_version(&path, version);
            let state = State::open(&path).unwrap();
            assert!(!state.is_new());
            assert_eq!(state.agents().unwrap()[0].created, 7);
            let questions = state.open_questions().unwrap();
            assert_eq!((questions[0].asked, questions[0].said), (8, None));
            assert_eq!(state.audited(9).unwrap()[0].act, "invoke worker");
            drop(state);
            let before = Connection::open(kept(&path, version)).unwrap();
            let found: usize =
                before.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(found, version);
            // Not again.
            std::fs::remove_file(kept(&path, version)).unwrap();
            State::open(&path).unwrap();
            assert!(!kept(&path, version).exists());
        }
    }

    #[test]
    fn a_newer_state_is_refused_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        of_version(&path, VERSION);
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", VERSION + 1).unwrap();
        drop(db);
        let error = State::open(&path).unwrap_err();
        assert!(matches!(error, Error::NewerState { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains("version 5") && told.contains("up to 4"), "{told}");
    }
}
