//! Who may change a home.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use fireclaw_host::PathError;

use crate::home::SETUP_LOCK;
use crate::{Home, Progress, Result, debian, files};

/// Only one process at a time changes a home.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for whoever changes it now, then clears away what killed ones left.
    pub fn wait(home: &Home, progress: &dyn Progress) -> Result<Self> {
        let path = home.setup_lock();
        let file = home.lock_file(SETUP_LOCK)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.detail("another set-up is at work here; waiting for it");
                file.lock().map_err(PathError::at("lock", &path))?;
            }
            Err(TryLockError::Error(e)) => return Err(PathError::at("lock", &path)(e).into()),
        }
        files::remove_partials(home.root());
        for directory in ["kernels", "images", "initramfs"] {
            remove_partials_below(&home.join(Path::new(directory)));
        }
        debian::clear_scratch(home);
        Ok(Self { _file: file })
    }
}

fn remove_partials_below(directory: &Path) {
    files::remove_partials(directory);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files::remove_partials(&entry.path());
        }
    }
}
