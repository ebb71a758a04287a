//! Who has which address, in SQLite: written before a thing is made, cleared after it is
//! gone.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use fireclaw_host::ProcessStamp;
use ipnet::Ipv4Net;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use crate::address::tap_name;
use crate::mode::NetworkMode;
use crate::{Error, Result};

/// The version of the tables, in SQLite's `user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE machines (
    address     INTEGER PRIMARY KEY,
    owner       TEXT NOT NULL,
    place       TEXT NOT NULL CHECK (place IN ('host', 'namespace')),
    policy      TEXT NOT NULL,      -- its first word
    directory   TEXT NOT NULL,      -- where the gateway's socket is
    pid         INTEGER NOT NULL,   -- of the process that makes and removes its things
    start_time  INTEGER NOT NULL
) STRICT;
-- What of the host was made or changed, and how it was before.
CREATE TABLE host (
    what        TEXT PRIMARY KEY,
    before      TEXT NOT NULL
) STRICT;
";

/// A VM's address and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its address.
    pub address: Ipv4Addr,
    /// For whom it is: a run's or an agent's name.
    pub owner: String,
    /// Where its tap and rules are.
    pub mode: NetworkMode,
    /// The first word of the policy that it started with.
    pub policy: String,
    /// Where its gateway's socket is.
    pub directory: PathBuf,
    /// The process that removes what belongs to it.
    pub helper: ProcessStamp,
}

impl Machine {
    /// The name of its tap.
    pub fn tap(&self) -> String {
        tap_name(self.address)
    }
}

/// The addresses in use, open.
#[derive(Debug)]
pub(crate) struct State {
    db: Connection,
}

/// Held while something of the host is made or removed; freed by the kernel.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits until nobody else makes or removes something of the host.
pub(crate) fn lock(directory: &Path) -> Result<Lock> {
    let path = directory.join("net.lock");
    let failed = |reason: std::io::Error| Error::State {
        reason: format!("cannot lock {}: {reason}", path.display()),
    };
    make_directory(directory).map_err(failed)?;
    let file = private(&path).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| failed(e.into()))?;
    Ok(Lock { _file: file })
}

/// Opens a file, made for its owner alone: who may read a file may lock it for ever.
fn private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    close_to_others(path)?;
    Ok(file)
}

/// Takes from others what they may do with a file or directory of ours that was made before.
fn close_to_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let found = std::fs::symlink_metadata(path)?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if is_ours && !found.is_symlink() && found.mode() & 0o077 != 0 {
        let private = std::fs::Permissions::from_mode(found.mode() & 0o700);
        std::fs::set_permissions(path, private)?;
    }
    Ok(())
}

fn make_directory(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // A home is mended by whoever owns it; this one is ours alone.
    if directory == Path::new(crate::mode::RUN) { close_to_others(directory) } else { Ok(()) }
}

impl State {
    const FILE: &str = "net.db";

    /// Opens or makes the state in a directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(Self::FILE);
        make_directory(directory).map_err(|e| Error::State {
            reason: format!("cannot make {}: {e}", directory.display()),
        })?;
        private(&path)
            .map_err(|e| Error::State { reason: format!("cannot open {}: {e}", path.display()) })?;
        let mut db = Connection::open(path)?;
        db.busy_timeout(std::time::Duration::from_secs(10))?;
        // A commit survives our death, if not the host's: what is lost then has gone too,
        // or carries its name.
        db.pragma_update(None, "synchronous", "OFF")?;
        // To make and remove the journal's file takes longer than all else here.
        db.pragma_update(None, "journal_mode", "PERSIST")?;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 =
            transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => {
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            _ => return Err(Error::State { reason: "a newer Fireclaw made it".into() }),
        }
        transaction.commit()?;
        Ok(Self { db })
    }

    /// Opens the state of a directory if there is one.
    pub fn open_existing(directory: &Path) -> Result<Option<Self>> {
        if directory.join(Self::FILE).exists() { Self::open(directory).map(Some) } else { Ok(None) }
    }

    /// Gives an address of the subnet to a VM: the lowest that is free, but neither the
    /// network's own, nor the host's (the first), nor the broadcast address.
    pub fn allocate(&mut self, subnet: Ipv4Net, mut machine: Machine) -> Result<Machine> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let first = u32::from(subnet.network()) + 2;
        let last = u32::from(subnet.broadcast()) - 1;
        let taken: Vec<u32> = transaction
            .prepare_cached(
                "SELECT address FROM machines WHERE address BETWEEN ?1 AND ?2 ORDER BY 1",
            )?
            .query_map([first, last], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let free = (first..=last).zip(taken.iter().map(Some).chain(std::iter::repeat(None)));
        let free = free.into_iter().find(|(address, taken)| *taken != Some(address));
        let Some((address, _)) = free else {
            return Err(Error::NoAddress { subnet: subnet.to_string() });
        };
        machine.address = address.into();
        transaction.execute(
            "INSERT INTO machines VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                address,
                machine.owner,
                machine.mode.word(),
                machine.policy,
                machine.directory.to_string_lossy(),
                machine.helper.pid,
                start_time(machine.helper)
            ],
        )?;
        transaction.commit()?;
        Ok(machine)
    }

    /// Frees an address, if that helper has it still; whether it had.
    pub fn free(&self, machine: &Machine) -> Result<bool> {
        let changed = self.db.execute(
            "DELETE FROM machines WHERE address = ?1 AND pid = ?2 AND start_time = ?3",
            params![u32::from(machine.address), machine.helper.pid, start_time(machine.helper)],
        )?;
        Ok(changed > 0)
    }

    /// Frees the addresses of helpers that are no more, of which nothing else is left.
    pub fn free_dead(&self) -> Result<Vec<Machine>> {
        let mut machines = self.machines()?;
        machines.retain(|machine| !machine.helper.lives());
        machines.iter().try_for_each(|machine| self.free(machine).map(drop))?;
        Ok(machines)
    }

    /// Notes the policy that a VM has now.
    pub fn set_policy(&self, address: Ipv4Addr, policy: &str) -> Result<()> {
        self.db.execute(
            "UPDATE machines SET policy = ?2 WHERE address = ?1",
            params![u32::from(address), policy],
        )?;
        Ok(())
    }

    /// All VMs, by address.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let mut query = self.db.prepare_cached("SELECT * FROM machines ORDER BY address")?;
        let rows = query.query_map([], machine)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Notes something of the host before it is changed, and how it was. The first note stays.
    pub fn note(&self, what: &str, before: &str) -> Result<()> {
        self.db.execute("INSERT OR IGNORE INTO host VALUES (?1, ?2)", params![what, before])?;
        Ok(())
    }

    /// What was noted, and how it was.
    pub fn notes(&self) -> Result<Vec<(String, String)>> {
        let mut query = self.db.prepare_cached("SELECT what, before FROM host ORDER BY what")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How it was, if it was noted.
    pub fn noted(&self, what: &str) -> Result<Option<String>> {
        Ok(self
            .db
            .query_row("SELECT before FROM host WHERE what = ?1", [what], |row| row.get(0))
            .optional()?)
    }

    /// It is as it was.
    pub fn forget(&self, what: &str) -> Result<()> {
        self.db.execute("DELETE FROM host WHERE what = ?1", [what])?;
        Ok(())
    }
}

/// SQLite's integers are signed; ticks since boot fit for 10^9 years.
fn start_time(stamp: ProcessStamp) -> i64 {
    i64::try_from(stamp.start_time).unwrap_or(i64::MAX)
}

fn machine(row: &Row<'_>) -> rusqlite::Result<Machine> {
    let mode: String = row.get("place")?;
    let directory: String = row.get("directory")?;
    Ok(Machine {
        address: row.get::<_, u32>("address")?.into(),
        owner: row.get("owner")?,
        mode: if mode == "host" { NetworkMode::Host } else { NetworkMode::Namespace },
        policy: row.get("policy")?,
        directory: directory.into(),
        helper: ProcessStamp {
            pid: row.get("pid")?,
            start_time: row.get::<_, i64>("start_time")?.unsigned_abs(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(owner: &str) -> Machine {
        Machine {
            address: Ipv4Addr::UNSPECIFIED,
            owner: owner.into(),
            mode: NetworkMode::Host,
            policy: "local".into(),
            directory: "/tmp/x".into(),
            helper: ProcessStamp::of(rustix::process::getpid().as_raw_nonzero().get()).unwrap(),
        }
    }

    fn subnet() -> Ipv4Net {
        "172.16.0.0/29".parse().unwrap()
    }

    #[test]
    fn addresses_are_given_once_and_freed_once() {
        let home = tempfile::tempdir().unwrap();
        let mut state = State::open(home.path()).unwrap();
        let given: Vec<_> =
            (0..5).map(|n| state.allocate(subnet(), machine(&n.to_string())).unwrap()).collect();
        let last: Vec<u8> = given.iter().map(|machine| machine.address.octets()[3]).collect();
        assert_eq!(last, [2, 3, 4, 5, 6]);
        assert!(matches!(state.allocate(subnet(), machine("x")), Err(Error::NoAddress { .. })));
        assert!(state.free(&given[2]).unwrap() && !state.free(&given[2]).unwrap());
        let again = state.allocate(subnet(), machine("again")).unwrap();
        assert_eq!(again.address, given[2].address);
        drop(state);
        let state = State::open_existing(home.path()).unwrap().unwrap();
        assert_eq!(state.machines().unwrap().len(), 5);
        assert!(state.machines().unwrap().contains(&again));
        // Another process's address is not freed.
        let other = ProcessStamp { start_time: again.helper.start_time + 1, ..again.helper };
        assert!(!state.free(&Machine { helper: other, ..again }).unwrap());
    }

    #[test]
    fn it_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let _held = lock(home.path()).unwrap();
        let mut state = State::open(home.path()).unwrap();
        state.allocate(subnet(), machine("x")).unwrap();
        for file in std::fs::read_dir(home.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", file.path().display());
        }
    }

    #[test]
    fn how_the_host_was_is_noted_once() {
        let home = tempfile::tempdir().unwrap();
        let state = State::open(home.path()).unwrap();
        state.note("a", "0").unwrap();
        state.note("a", "1").unwrap();
        assert_eq!(state.noted("a").unwrap().as_deref(), Some("0"));
        assert_eq!(state.noted("b").unwrap(), None);
        assert_eq!(state.notes().unwrap(), [("a".into(), "0".into())]);
        state.forget("a").unwrap();
        assert_eq!(state.noted("a").unwrap(), None);
    }

    #[test]
    fn a_newer_state_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let state = State::open(home.path()).unwrap();
        state.db.pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(State::open(home.path()).is_err());
        assert!(State::open_existing(&home.path().join("none")).unwrap().is_none());
    }
}
