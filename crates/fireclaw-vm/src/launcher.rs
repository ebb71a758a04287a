//! VMs of one shape, started as fast as can be.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fireclaw_protocol::message::{ExecRequest, ExitStatus};

use crate::backend::MEMORY_FILE;
use crate::snapshot::{Key, Recipe, Snapshot, Store};
use crate::{
    Backend, Error, Launch, Machine, MachineSpec, Memory, Result, RunDir, TapAttachment, Waiting,
};

/// How long a warming command may take.
const WARMING: Duration = Duration::from_secs(300);

/// Starts VMs that are all alike.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The VMM.
    pub backend: Arc<dyn Backend>,
    /// What to boot.
    pub spec: MachineSpec,
    /// Where run directories are made.
    pub run: PathBuf,
    /// How long a guest may take to answer.
    pub timeout: Duration,
}

impl Launcher {
    /// Starts the VMM. The VM owns its run directory. With an interface, it is
    /// attached where `attachment` says.
    pub async fn launch(
        &self,
        memory: Memory<'_>,
        attachment: Option<&TapAttachment>,
    ) -> Result<Machine> {
        self.launch_in(None, memory, attachment).await
    }

    /// The same in a directory that is detached, if one is given.
    pub async fn launch_in(
        &self,
        detached: Option<&RunDir>,
        memory: Memory<'_>,
        attachment: Option<&TapAttachment>,
    ) -> Result<Machine> {
        if let Some(run_dir) = detached {
            let launch = Launch { spec: &self.spec, run_dir, memory, attachment };
            return self.backend.launch(launch).await;
        }
        let run_dir = RunDir::create(&self.run)?;
        let launch = Launch { spec: &self.spec, run_dir: &run_dir, memory, attachment };
        let machine = self.backend.launch(launch).await?;
        Ok(Machine { run_dir: Some(run_dir), ..machine })
    }

    /// Boots a VM until its guest waits; `on_start` is called once the VMM runs.
    ///
    /// Under emulation one boot in hundreds hangs on a timer interrupt that is
    /// lost. A guest that is silent for much longer than any boot takes is
    /// therefore booted once more.
    pub async fn boot(
        &self,
        memory: Memory<'_>,
        attachment: Option<&TapAttachment>,
        on_start: impl FnOnce(),
    ) -> Result<Waiting> {
        self.boot_in(None, memory, attachment, on_start).await
    }

    /// The same in a directory that is detached, if one is given.
    pub async fn boot_in(
        &self,
        detached: Option<&RunDir>,
        memory: Memory<'_>,
        attachment: Option<&TapAttachment>,
        on_start: impl FnOnce(),
    ) -> Result<Waiting> {
        let machine = self.launch_in(detached, memory, attachment).await?;
        on_start();
        match Waiting::meet(machine, self.timeout / 4).await {
            Err(Error::GuestSilent { .. }) => {
                if let Memory::SavedTo(directory) = memory {
                    let _ = std::fs::remove_file(directory.join(MEMORY_FILE));
                }
                if let Some(run_dir) = detached {
                    clear_detached(run_dir).await;
                }
                Waiting::meet(self.launch_in(detached, memory, attachment).await?, self.timeout)
                    .await
            }
            Ok(mut waiting) => {
                waiting.timeout = self.timeout;
                Ok(waiting)
            }
            Err(e) => Err(e),
        }
    }

    /// What a snapshot of this VM depends on, as everything is now.
    pub fn key(&self, warm: Option<&str>) -> Result<Key> {
        Key::new(self.backend.as_ref(), &self.spec, warm)
    }

    /// The snapshot of this VM; made now if there is no valid one, after
    /// `on_make` has been called.
    ///
    /// A VM with an interface is saved on the tap `scratch`, on which nothing is
    /// ever sent. It need not be there if [`Store::find`] finds a snapshot under
    /// [`Launcher::key`].
    ///
    /// # Errors
    /// [`Error::NotPrepared`] if the recipe's command fails, and whatever a
    /// boot or a file system can say.
    pub async fn snapshot(
        &self,
        store: &Store,
        recipe: &Recipe,
        scratch: Option<&TapAttachment>,
        on_make: impl FnOnce(),
    ) -> Result<Snapshot> {
        let key = self.key(recipe.warm.as_deref())?;
        let fill = async |directory: PathBuf| {
            on_make();
            self.save_in(&directory, recipe.warm.as_deref(), scratch).await
        };
        store.find_or_create(&key, recipe, fill).await
    }

    async fn save_in(
        &self,
        directory: &Path,
        warm: Option<&str>,
        scratch: Option<&TapAttachment>,
    ) -> Result<()> {
        let mut waiting = self.boot(Memory::SavedTo(directory), scratch, || ()).await?;
        if let Some(line) = warm {
            prepare(&mut waiting, line).await?;
        }
        waiting.save().await
    }
}

/// Ends a VMM that outlives its handle, so that another can take its place in the directory.
pub async fn clear_detached(run_dir: &RunDir) {
    let id = run_dir.id().to_owned();
    let ending = tokio::task::spawn_blocking(move || crate::kill_marked(&id));
    // What cannot be ended is met by who takes its place.
    let _ = ending.await;
}

/// Has the guest run a shell line, which must succeed.
async fn prepare(waiting: &mut Waiting, line: &str) -> Result<()> {
    let prepared = waiting.prepare(shell(line, WARMING)).await?;
    let how = match prepared.status {
        Some(ExitStatus::Code(0)) => return Ok(()),
        Some(ExitStatus::Code(code)) => format!("exited with status {code}"),
        Some(ExitStatus::Signal(signal)) => format!("was ended by signal {signal}"),
        Some(ExitStatus::TimedOut) => format!("took longer than {} s", WARMING.as_secs()),
        None => "could not be started".to_owned(),
    };
    let text = String::from_utf8_lossy(&prepared.output).into_owned();
    let output = text.lines().map(fireclaw_host::escape).collect::<Vec<_>>().join("\n");
    Err(Error::NotPrepared { how, output })
}

/// A shell line as a command that may take so long.
pub(crate) fn shell(line: &str, limit: Duration) -> ExecRequest {
    let argv = ["/bin/sh", "-c", line].map(|word| word.as_bytes().to_vec().into());
    ExecRequest {
        argv: argv.into(),
        timeout_ms: Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        ..ExecRequest::default()
    }
}
