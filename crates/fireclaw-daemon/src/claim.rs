//! One daemon to a home.

use std::fs::{File, TryLockError};

use fireclaw_host::PathError;
use fireclaw_image::Home;

use crate::{Error, Result};

const LOCK: &str = "daemon.lock";

/// That a home is ours, for as long as this lives. The kernel lets go of it however
/// the process ends.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

impl Claim {
    /// Claims a home; before anything is started that another daemon has as well.
    ///
    /// # Errors
    /// [`Error::AlreadyRuns`], [`Error::File`].
    pub fn of(home: &Home) -> Result<Self> {
        let root = home.root();
        let lock = home.lock_file(LOCK)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::AlreadyRuns { home: root.to_owned() }),
            Err(TryLockError::Error(e)) => Err(PathError::at("lock", root.join(LOCK))(e).into()),
        }
    }
}
