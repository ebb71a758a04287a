//! What the daemon owns, in SQLite: written before a thing is made, cleared after it
//! is gone.

mod agents;
mod audit;
mod messages;
mod named;
mod questions;
mod schema;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

pub use self::agents::{AgentRow, Wanted};
pub use self::audit::Act;
pub use self::messages::Pending;
pub use self::named::{SandboxRow, SandboxWanted};
use crate::{Error, Result};

/// How large the write-ahead log grows before it is written back into the file, in bytes.
const MAX_LOG: u64 = 1024 * 1024;

thread_local! {
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread has worked on the state, in all: a disk that is slow to take even a
/// small write shows here.
pub fn time() -> Duration {
    TIME.get()
}

/// The daemon's state.
#[derive(Debug)]
pub struct State {
    db: Connection,
    is_new: bool,
}

impl State {
    /// Opens or makes the state in a file.
    ///
    /// # Errors
    /// [`Error::StateFile`], with the file left as it is; [`Error::NewerState`] if a newer
    /// Fireclaw made it.
    pub fn open(path: &Path) -> Result<Self> {
        refuse_a_lost_start(path)?;
        Self::open_database(path).map_err(|error| match error {
            Error::State(e) => unusable(path, &e),
            other => other,
        })
    }

    /// Whether there was nothing in it when it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Looks at a state without changing it. There is no state if this is none.
    ///
    /// # Errors
    /// Those of [`State::open`].
    pub fn check(path: &Path) -> Result<Option<()>> {
        if !path.try_exists().unwrap_or(true) {
            return Ok(None);
        }
        refuse_a_lost_start(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let checked = Connection::open_with_flags(path, flags).and_then(|db| whole(&db));
        match checked {
            // A daemon that works on it has looked at it.
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(Some(())),
            Err(e) => Err(unusable(path, &e)),
            Ok(()) => Ok(Some(())),
        }
    }

    fn open_database(path: &Path) -> Result<Self> {
        let mut db = Connection::open(path)?;
        whole(&db)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // A commit survives the daemon's death, if not the host's: what is lost
        // then is found by what it carries.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        // To write it back waits for the disk, so [`write_back`] does it apart. What is left is
        // the sync of the log's first page when it begins anew.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.trace_v2(
            TraceEventCodes::SQLITE_TRACE_STMT | TraceEventCodes::SQLITE_TRACE_PROFILE,
            // SQLite's own figure is of the wall clock.
            Some(|event| match event {
                TraceEvent::Stmt(..) if SINCE.get().is_none() => SINCE.set(Some(Instant::now())),
                TraceEvent::Profile(..) => {
                    let took = SINCE.take().map(|since| since.elapsed());
                    TIME.set(TIME.get() + took.unwrap_or_default());
                }
                _ => {}
            }),
        );
        let before = schema::migrate(&mut db, path)?;
        Ok(Self { db, is_new: before == 0 })
    }
}

/// Writes the changes to a state back from its write-ahead log, if they are many. Who works on
/// it is not held up.
///
/// # Errors
/// Those of SQLite. Nothing is lost then.
pub fn write_back(path: &Path) -> Result<()> {
    if length(&log_of(path)) > MAX_LOG {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    }
    Ok(())
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// A state without a beginning whose last changes are still there: SQLite would throw them
/// away.
fn refuse_a_lost_start(path: &Path) -> Result<()> {
    let log = log_of(path);
    if length(path) == 0 && length(&log) > 0 {
        let problem = format!("it is empty, but {} is not", log.display());
        return Err(Error::StateFile { path: path.to_owned(), damaged: true, problem });
    }
    Ok(())
}

/// An error if the file is not as SQLite wrote it. The state is small, so all of it is read.
fn whole(db: &Connection) -> rusqlite::Result<()> {
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        return Ok(());
    }
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(corrupt, Some(found)))
}

/// The error for a file that cannot be used.
fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
    let damaged = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    // SQLite names places in the file, of which the first is enough.
    let problem = error.to_string();
    let problem = problem.lines().next().unwrap_or_default().to_owned();
    Error::StateFile { path: path.to_owned(), damaged, problem }
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn number(row: &Row<'_>, name: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(name).map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests;
