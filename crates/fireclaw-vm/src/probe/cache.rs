//! What was found out about this host, kept between runs.
//!
//! Every entry is keyed by all it depends on, so a stale one is never used.
//! Losing the file costs a new probe, nothing more; that is why a file that
//! cannot be read or written is no error.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Backend, Result, tsc};

/// Whether guests boot on a VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// One did.
    Boots {
        /// From the VMM's start to the guest's end, in milliseconds.
        milliseconds: u64,
    },
    /// It started but no guest reported within the limit.
    Hangs,
    /// KVM interprets the code of a kernel, so that none boots.
    Interprets {
        /// What an instruction takes, in nanoseconds.
        turn_ns: u64,
    },
    /// It did not even start.
    Fails {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// For how many seconds it holds: a good one for as long as its key does.
    fn holds(&self) -> u64 {
        match self {
            Self::Boots { .. } => u64::MAX,
            // The host may only have been busy, and emulation is slow: the next
            // probe costs 10 s.
            Self::Hangs => 15 * 60,
            // The disk may have been full; KVM another one after the host moved.
            Self::Interprets { .. } | Self::Fails { .. } => 24 * 3600,
        }
    }
}

/// A verdict with its date, in seconds since the Unix epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    found: u64,
    verdict: Verdict,
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The answers, and the file that keeps them.
#[derive(Debug, Default)]
pub struct Cache {
    file: Option<PathBuf>,
    answers: BTreeMap<String, serde_json::Value>,
}

impl Cache {
    /// Reads the answers kept in `file`, if there are any.
    pub fn open(file: &Path) -> Self {
        let answers = fs::read(file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { file: Some(file.to_owned()), answers }
    }

    /// Forgets all verdicts on KVM, so that the next question boots a guest.
    pub fn forget_verdicts(&mut self) {
        self.answers.retain(|key, _| !key.starts_with("boot "));
    }

    /// The version of `program`, asked anew when the file has changed.
    pub fn version(
        &mut self,
        program: &Path,
        ask: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<String> {
        let key = format!("version {}", fingerprint(program));
        if let Some(known) = self.get(&key) {
            return Ok(known);
        }
        let version = ask(program)?;
        self.put(key, &version);
        Ok(version)
    }

    /// The host's time-stamp rate in kHz, measured once per boot of the host.
    pub fn tsc_khz(&mut self) -> u64 {
        let key = format!("tsc_khz {}", read_line("/proc/sys/kernel/random/boot_id"));
        if let Some(known) = self.get(&key) {
            return known;
        }
        let khz = tsc::khz();
        self.put(key, &khz);
        khz
    }

    /// A verdict that still holds.
    pub fn verdict(&self, backend: &dyn Backend, kernel: &Path) -> Option<Verdict> {
        let kept: Kept = self.get(&boot_key(backend, kernel))?;
        let age = unix_time().saturating_sub(kept.found);
        (age < kept.verdict.holds()).then_some(kept.verdict)
    }

    /// Keeps a verdict.
    pub fn keep_verdict(&mut self, backend: &dyn Backend, kernel: &Path, verdict: Verdict) {
        self.put(boot_key(backend, kernel), &Kept { verdict, found: unix_time() });
    }

    fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_value(self.answers.get(key)?.clone()).ok()
    }

    fn put(&mut self, key: String, value: &impl Serialize) {
        let Ok(value) = serde_json::to_value(value) else { return };
        // One answer per question: what an older key said no longer holds.
        let question = key.split(' ').next().unwrap_or_default().to_owned();
        if question == "tsc_khz" {
            self.answers.retain(|old, _| !old.starts_with(&question));
        }
        self.answers.insert(key, value);
        let _ = self.save();
    }

    fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
            crate::leftover::remove_dead(parent, "tmp");
        }
        // Two processes may save at once: each writes a file of its own and
        // the last rename wins; either content is right.
        let fresh = file.with_extension(format!("{}.tmp", std::process::id()));
        let mut out = fs::File::create(&fresh)?;
        out.write_all(&serde_json::to_vec_pretty(&self.answers)?)?;
        drop(out);
        fs::rename(&fresh, file)
    }
}

fn boot_key(backend: &dyn Backend, kernel: &Path) -> String {
    format!(
        "boot {:?} {} on {} {} with {}",
        backend.kind(),
        backend.version(),
        read_line("/proc/sys/kernel/osrelease"),
        read_line("/proc/sys/kernel/version"),
        fingerprint(kernel),
    )
}

/// A file's path, size and times: changes when the file does.
fn fingerprint(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let stat = fs::metadata(&path).map(|m| (m.len(), m.mtime(), m.mtime_nsec()));
    format!("{} {:?}", path.display(), stat.ok())
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_program_is_asked_again() {
        let home = tempfile::tempdir().unwrap();
        let (file, program) = (home.path().join("c/host.json"), home.path().join("vmm"));
        fs::write(&program, "1").unwrap();
        let ask = |answer: &'static str| move |_: &Path| Ok(answer.to_owned());
        assert_eq!(Cache::open(&file).version(&program, ask("7.2")).unwrap(), "7.2");
        assert_eq!(Cache::open(&file).version(&program, ask("8.0")).unwrap(), "7.2");
        fs::write(&program, "22").unwrap();
        assert_eq!(Cache::open(&file).version(&program, ask("8.0")).unwrap(), "8.0");
    }

    #[test]
    fn a_busy_moment_is_forgotten_soon() {
        assert!(Verdict::Hangs.holds() <= 3600);
        assert!(Verdict::Boots { milliseconds: 1 }.holds() > 10 * 365 * 24 * 3600);
    }

    #[test]
    fn a_damaged_file_is_only_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("host.json");
        fs::write(&file, "{ not json").unwrap();
        assert!(Cache::open(&file).tsc_khz() > 1000);
        assert!(fs::read_to_string(&file).unwrap().contains("tsc_khz"));
    }
}
