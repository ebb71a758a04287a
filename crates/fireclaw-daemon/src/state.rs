//! What the daemon owns, in SQLite: written before a thing is made, cleared after it
//! is gone.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fireclaw_protocol::agent::Said;
use fireclaw_vm::ProcessStamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::{Error, Result};

/// The version of the tables, in SQLite's `user_version`.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE agents (
    name        TEXT PRIMARY KEY,
    template    TEXT NOT NULL,
    nick        TEXT NOT NULL UNIQUE,
    model       TEXT,               -- instead of the template's
    persona     TEXT,               -- instead of the template's
    wanted      TEXT NOT NULL CHECK (wanted IN ('running', 'paused', 'gone')),
    machine     TEXT UNIQUE,        -- the id of its directory and the mark of its monitor
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
";

/// What came with version 2.
const ALLOWED: &str = "
CREATE TABLE allowed (              -- what people let an agent reach besides its template's policy
    agent       TEXT NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
    target      TEXT NOT NULL,
    PRIMARY KEY (agent, target)
) STRICT;
";

/// More messages than a daemon takes in a second, over all the time of a state.
const MESSAGES_A_SECOND: i64 = 1000;

/// What is wanted of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its machine runs.
    Running,
    /// Its machine is stopped where it is.
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
    /// Its machine's id, from before the machine is made until it is gone.
    pub machine: Option<String>,
    /// Its machine's monitor, once it runs.
    pub process: Option<ProcessStamp>,
    /// When it was made: seconds since the epoch.
    pub created: i64,
    /// When it is to be destroyed, if ever.
    pub ends: Option<i64>,
}

/// A message that an agent has yet to deal with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Rises with time; given by the state.
    pub id: u64,
    /// A channel, or the nick of who spoke in private.
    pub place: String,
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
    /// Whether somebody said it in a place; anywhere if that is absent.
    pub fn is_of(&self, sender: &str, place: Option<&str>) -> bool {
        // Said to some members of a channel, as `@#channel`, it was said in the channel.
        let bare = self.place.trim_start_matches(['~', '&', '@', '%', '+']);
        self.sender == sender && place.is_none_or(|place| place == self.place || place == bare)
    }
}

/// A question to the people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    /// Its number, by which it is answered.
    pub id: u64,
    /// Who asks.
    pub agent: String,
    /// For which message.
    pub message: u64,
    /// The tool.
    pub tool: String,
    /// The command or the arguments.
    pub what: String,
    /// The answer, and its reason or who gave it.
    pub verdict: Option<(bool, String)>,
    /// When it was asked: seconds since the epoch.
    pub asked: i64,
}

impl ApprovalRow {
    /// The longest tool's name and the longest question, in bytes: what is longer
    /// cannot be judged in a line.
    pub(crate) const MAX_TOOL: usize = 64;
    pub(crate) const MAX_WHAT: usize = 4096;

    /// Whether leave was given.
    pub(crate) fn is_granted(&self) -> bool {
        matches!(self.verdict, Some((true, _)))
    }
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
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if !(0..=VERSION).contains(&version) {
            return Err(Error::NewerState { path: path.to_owned(), version });
        }
        let transaction = db.transaction()?;
        if version < 1 {
            transaction.execute_batch(TABLES)?;
            // A workspace outlives the state, and remembers by number what it has answered:
            // a state that was made later begins with higher ones.
            let first = now().saturating_mul(MESSAGES_A_SECOND);
            transaction.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?1)",
                [first],
            )?;
        }
        if version < 2 {
            transaction.execute_batch(ALLOWED)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        Ok(Self { db, is_new: version == 0 })
    }

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
    /// [`Error::NameTaken`] if the name or the nick is.
    pub fn add(&mut self, agent: &AgentRow, channels: &[String]) -> Result<()> {
        let transaction = self.db.transaction()?;
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

    /// Gives an agent another persona.
    pub fn set_persona(&self, name: &str, persona: &str) -> Result<()> {
        self.db
            .execute("UPDATE agents SET persona = ?2 WHERE name = ?1", params![name, persona])?;
        Ok(())
    }

    /// Notes the machine that an agent is about to have, or that it has none.
    pub fn set_machine(&self, name: &str, machine: Option<&str>) -> Result<()> {
        self.db.execute(
            "UPDATE agents SET machine = ?2, pid = NULL, start_time = NULL WHERE name = ?1",
            params![name, machine],
        )?;
        Ok(())
    }

    /// Notes the monitor of an agent's machine.
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

    /// Keeps a message until it has been dealt with; its number.
    pub fn keep(&self, agent: &str, message: &Pending) -> Result<u64> {
        let recent = serde_json::to_string(&message.recent).unwrap_or_default();
        self.db.execute(
            "INSERT INTO messages (agent, place, private, sender, from_agent, hops, text, recent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                agent,
                message.place,
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
                place: row.get("place")?,
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

    /// A message has been dealt with.
    pub fn done(&mut self, agent: &str, message: u64) -> Result<()> {
        let transaction = self.db.transaction()?;
        let id = i64::try_from(message).unwrap_or(-1);
        transaction
            .execute("DELETE FROM messages WHERE agent = ?1 AND id = ?2", params![agent, id])?;
        transaction.execute(
            "DELETE FROM approvals WHERE agent = ?1 AND message = ?2",
            params![agent, id],
        )?;
        transaction.commit()?;
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

    /// Forgets a question.
    pub fn forget(&self, question: u64) -> Result<()> {
        let id = i64::try_from(question).unwrap_or(-1);
        self.db.execute("DELETE FROM approvals WHERE id = ?1", [id])?;
        Ok(())
    }

    /// The question whether a tool may be used for a message: the one that was asked
    /// before, also before a restart, or a new one. A leave that was given is used up by
    /// this: it is for one time.
    pub fn ask(
        &mut self,
        agent: &str,
        message: u64,
        tool: &str,
        what: &str,
    ) -> Result<ApprovalRow> {
        let message = i64::try_from(message).unwrap_or(-1);
        let transaction = self.db.transaction()?;
        let known = transaction
            .query_row(
                "SELECT * FROM approvals
                 WHERE agent = ?1 AND message = ?2 AND tool = ?3 AND what = ?4",
                params![agent, message, tool, what],
                approval_row,
            )
            .optional()?;
        if let Some(known) = known {
            if known.is_granted() {
                let id = i64::try_from(known.id).unwrap_or(-1);
                transaction.execute("DELETE FROM approvals WHERE id = ?1", [id])?;
                transaction.commit()?;
            }
            return Ok(known);
        }
        transaction.execute(
            "INSERT INTO approvals (agent, message, tool, what, asked) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![agent, message, tool, what, now()],
        )?;
        let id = transaction.last_insert_rowid();
        let row =
            transaction.query_row("SELECT * FROM approvals WHERE id = ?1", [id], approval_row)?;
        transaction.commit()?;
        Ok(row)
    }

    /// Answers a question; the question, if there is one that was not answered.
    pub fn answer(&self, id: u64, granted: bool, reason: &str) -> Result<Option<ApprovalRow>> {
        let id = i64::try_from(id).unwrap_or(-1);
        let verdict = if granted { "granted" } else { "refused" };
        let changed = self.db.execute(
            "UPDATE approvals SET verdict = ?2, reason = ?3 WHERE id = ?1 AND verdict IS NULL",
            params![id, verdict, reason],
        )?;
        if changed == 0 {
            return Ok(None);
        }
        let mut query = self.db.prepare_cached("SELECT * FROM approvals WHERE id = ?1")?;
        Ok(query.query_row([id], approval_row).optional()?)
    }

    /// Questions without an answer, oldest first.
    pub fn open_questions(&self) -> Result<Vec<ApprovalRow>> {
        let mut query =
            self.db.prepare_cached("SELECT * FROM approvals WHERE verdict IS NULL ORDER BY id")?;
        let rows = query.query_map([], approval_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Writes a privileged act down.
    pub fn audit(&self, who: &str, act: &str) -> Result<()> {
        self.db.execute("INSERT INTO audit VALUES (?1, ?2, ?3)", params![now(), who, act])?;
        Ok(())
    }

    /// The last privileged acts, newest last: seconds since the epoch, who, what.
    pub fn audited(&self, most: u32) -> Result<Vec<(i64, String, String)>> {
        let mut query = self.db.prepare_cached(
            "SELECT * FROM (SELECT rowid AS n, * FROM audit ORDER BY n DESC LIMIT ?1) ORDER BY n",
        )?;
        let rows = query.query_map([most], |row| Ok((row.get(1)?, row.get(2)?, row.get(3)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// A state without a beginning whose last changes are still there: SQLite would throw them
/// away.
fn refuse_a_lost_start(path: &Path) -> Result<()> {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if length(path) == 0 && length(Path::new(&log)) > 0 {
        let problem = format!("it is empty, but {} is not", Path::new(&log).display());
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

fn agent_row(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    let pid: Option<i32> = row.get("pid")?;
    let start_time: Option<i64> = row.get("start_time")?;
    let wanted: String = row.get("wanted")?;
    Ok(AgentRow {
        name: row.get("name")?,
        template: row.get("template")?,
        nick: row.get("nick")?,
        model: row.get("model")?,
        persona: row.get("persona")?,
        wanted: match &wanted[..] {
            "running" => Wanted::Running,
            "paused" => Wanted::Paused,
            _ => Wanted::Gone,
        },
        machine: row.get("machine")?,
        process: pid
            .zip(start_time)
            .map(|(pid, start)| ProcessStamp { pid, start_time: start.unsigned_abs() }),
        created: row.get("created")?,
        ends: row.get("ends")?,
    })
}

fn approval_row(row: &Row<'_>) -> rusqlite::Result<ApprovalRow> {
    let verdict: Option<String> = row.get("verdict")?;
    let reason: Option<String> = row.get("reason")?;
    Ok(ApprovalRow {
        id: number(row, "id")?,
        agent: row.get("agent")?,
        message: number(row, "message")?,
        tool: row.get("tool")?,
        what: row.get("what")?,
        verdict: verdict.map(|word| (word == "granted", reason.unwrap_or_default())),
        asked: row.get("asked")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> AgentRow {
        AgentRow {
            name: "worker".into(),
            template: "worker".into(),
            nick: "worker".into(),
            model: None,
            persona: None,
            wanted: Wanted::Running,
            machine: None,
            process: None,
            created: now(),
            ends: None,
        }
    }

    fn state() -> (tempfile::TempDir, State) {
        let home = tempfile::tempdir().unwrap();
        let mut state = State::open(&home.path().join("state.db")).unwrap();
        state.add(&worker(), &["#agents".into()]).unwrap();
        (home, state)
    }

    fn message(text: &str) -> Pending {
        Pending {
            id: 0,
            place: "#agents".into(),
            private: false,
            sender: "ann".into(),
            from_agent: false,
            hops: 0,
            text: text.into(),
            recent: vec![Said { from: "bob".into(), text: "hi".into() }],
        }
    }

    #[test]
    fn a_later_state_has_other_numbers() {
        let before = u64::try_from(now() - 60).unwrap();
        let (_home, state) = state();
        let id = state.keep("worker", &message("hello")).unwrap();
        assert!(id > before * 1000, "{id}");
        assert!(id < 1 << 53, "a number of JSON");
    }

    #[test]
    fn what_was_written_is_read_after_a_restart() {
        let (home, state) = state();
        state.set_machine("worker", Some("fireclaw-1")).unwrap();
        let process = ProcessStamp { pid: 7, start_time: 8 };
        state.set_process("worker", process).unwrap();
        state.join("worker", "#more").unwrap();
        state.join("worker", "#more").unwrap();
        state.leave("worker", "#agents").unwrap();
        let id = state.keep("worker", &message("one")).unwrap();
        drop(state);

        let state = State::open(&home.path().join("state.db")).unwrap();
        let row = state.agent("worker").unwrap().unwrap();
        assert_eq!((row.machine.as_deref(), row.process), (Some("fireclaw-1"), Some(process)));
        assert_eq!(state.channels("worker").unwrap(), ["#more"]);
        let pending = state.pending("worker").unwrap();
        assert_eq!(pending, [Pending { id, ..message("one") }]);
        // Another machine has no monitor yet.
        state.set_machine("worker", Some("fireclaw-2")).unwrap();
        assert_eq!(state.agent("worker").unwrap().unwrap().process, None);
    }

    #[test]
    fn names_and_nicks_are_given_once() {
        let (_home, mut state) = state();
        let same_nick = AgentRow { name: "other".into(), ..worker() };
        for taken in [worker(), same_nick] {
            assert!(matches!(state.add(&taken, &[]), Err(Error::NameTaken { .. })));
        }
        state.remove("worker").unwrap();
        assert!(state.channels("worker").unwrap().is_empty());
        state.add(&worker(), &[]).unwrap();
    }

    #[test]
    fn a_message_is_numbered_once_and_for_all() {
        let (_home, mut state) = state();
        let one = state.keep("worker", &message("one")).unwrap();
        state.done("worker", one).unwrap();
        let two = state.keep("worker", &message("two")).unwrap();
        assert!(two > one, "a number is not used again");
        state.done("another", two).unwrap();
        assert_eq!(state.pending("worker").unwrap().len(), 1, "only its owner may end it");
    }

    #[test]
    fn a_question_is_answered_once_and_asked_once() {
        let (_home, mut state) = state();
        let message = state.keep("worker", &message("rm")).unwrap();
        let asked = state.ask("worker", message, "run_command", "rm -rf /").unwrap();
        // After a restart the agent asks the same again.
        assert_eq!(state.ask("worker", message, "run_command", "rm -rf /").unwrap(), asked);
        assert_eq!(state.open_questions().unwrap().len(), 1);
        let answered = state.answer(asked.id, true, "ann").unwrap().unwrap();
        assert_eq!(answered.verdict, Some((true, "ann".into())));
        assert!(state.answer(asked.id, false, "bob").unwrap().is_none());
        assert!(state.answer(999, true, "ann").unwrap().is_none());
        let again = state.ask("worker", message, "run_command", "rm -rf /").unwrap();
        assert_eq!(again.verdict, Some((true, "ann".into())));
        // Leave is for one time: who does it again asks again.
        let next = state.ask("worker", message, "run_command", "rm -rf /").unwrap();
        assert!(next.id > asked.id && next.verdict.is_none(), "{next:?}");
        // A refusal stays for as long as the message does.
        state.answer(next.id, false, "ann").unwrap();
        for _ in 0..2 {
            let refused = state.ask("worker", message, "run_command", "rm -rf /").unwrap();
            assert_eq!((refused.id, refused.is_granted()), (next.id, false));
        }
        state.done("worker", message).unwrap();
        assert!(state.open_questions().unwrap().is_empty());
    }

    #[test]
    fn a_state_of_the_first_version_is_taken_on() {
        let (home, state) = state();
        state.db.execute_batch("DROP TABLE allowed").unwrap();
        state.db.pragma_update(None, "user_version", 1).unwrap();
        drop(state);
        let state = State::open(&home.path().join("state.db")).unwrap();
        assert_eq!(state.agents().unwrap().len(), 1);
        assert_eq!(state.allowed("worker").unwrap(), [""; 0]);
    }

    #[test]
    fn what_people_allow_goes_with_the_agent() {
        let (_home, state) = state();
        for target in ["b.example:443", "a.example", "a.example"] {
            state.allow("worker", target).unwrap();
        }
        assert_eq!(state.allowed("worker").unwrap(), ["a.example", "b.example:443"]);
        state.remove("worker").unwrap();
        assert_eq!(state.allowed("worker").unwrap(), [""; 0]);
    }

    #[test]
    fn a_question_about_the_network_can_be_asked_again() {
        let (_home, mut state) = state();
        let first = state.ask("worker", 0, "reach", "a.example").unwrap();
        assert_eq!(state.ask("worker", 0, "reach", "a.example").unwrap().id, first.id);
        state.answer(first.id, false, "ann").unwrap();
        state.forget(first.id).unwrap();
        let second = state.ask("worker", 0, "reach", "a.example").unwrap();
        assert!(second.id > first.id && second.verdict.is_none());
        let line = format!("#{} worker wants to reach: a.example", second.id);
        assert_eq!(second.lines(), Some(vec![line]));
    }

    #[test]
    fn a_newer_state_is_refused() {
        let (home, state) = state();
        state.db.pragma_update(None, "user_version", VERSION + 1).unwrap();
        drop(state);
        let opened = State::open(&home.path().join("state.db"));
        assert!(matches!(opened, Err(Error::NewerState { .. })));
    }

    /// What opening says of a file with this content, which must be left as it was.
    fn refused(path: &Path, content: &[u8]) -> String {
        std::fs::write(path, content).unwrap();
        let error = State::open(path).unwrap_err();
        assert!(matches!(error, Error::StateFile { damaged: true, .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert!(matches!(State::check(path), Err(Error::StateFile { damaged: true, .. })));
        assert!(std::fs::read(path).unwrap() == content, "the file was changed");
        error.to_string()
    }

    #[test]
    fn a_damaged_state_is_refused_and_kept() {
        let (home, mut state) = state();
        for n in 0..200 {
            state.keep("worker", &message(&format!("{n} {}", "x".repeat(500)))).unwrap();
        }
        state.ask("worker", 1, "run_command", "true").unwrap();
        drop(state);
        let path = home.path().join("state.db");
        State::check(&path).unwrap().unwrap();
        let good = std::fs::read(&path).unwrap();
        assert!(good.len() > 64 << 10);
        // Its beginning, its middle, its end.
        let noise: Vec<u8> =
            (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert!(refused(&path, &[&noise, &good[4096..]].concat()).contains("not a database"));
        refused(&path, &[&good[..8192], &noise, &noise, &good[16384..]].concat());
        refused(&path, &good[..good.len() / 2]);
        refused(&path, b"hello");
        std::fs::write(&path, &good).unwrap();
        assert_eq!(State::open(&path).unwrap().pending("worker").unwrap().len(), 200);
    }

    #[test]
    fn an_empty_state_is_new_unless_its_last_changes_are_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        assert_eq!(State::check(&path).unwrap(), None);
        assert!(State::open(&path).unwrap().is_new());
        assert!(!State::open(&path).unwrap().is_new());
        std::fs::write(&path, "").unwrap();
        assert!(State::open(&path).unwrap().is_new());
        let log = home.path().join("state.db-wal");
        std::fs::write(&log, "changes").unwrap();
        refused(&path, b"");
        assert_eq!(std::fs::read(&log).unwrap(), b"changes");
    }

    #[test]
    fn what_the_system_refuses_is_not_called_damage() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        std::fs::create_dir(&path).unwrap();
        let error = State::open(&path).unwrap_err();
        assert!(matches!(error, Error::StateFile { damaged: false, .. }), "{error}");
        assert!(error.to_string().contains("state.db"), "{error}");
    }

    #[test]
    fn the_audit_log_keeps_its_order() {
        let (_home, state) = state();
        for n in 0..5 {
            state.audit("ann", &format!("act {n}")).unwrap();
        }
        let acts: Vec<_> = state.audited(2).unwrap().into_iter().map(|(.., act)| act).collect();
        assert_eq!(acts, ["act 3", "act 4"]);
    }
}
