//! Snapshots of a running QEMU.
//!
//! A snapshot is a migration into a file without the memory, which is a file
//! already (`x-ignore-shared`): milliseconds instead of copying it.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use fireclaw_host::PathError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::Qmp;
use crate::backend::{Control, Memory, STATE_FILE};
use crate::{Error, Result};

/// How often a migration is asked whether it is done.
const POLL: Duration = Duration::from_millis(1);

/// A QEMU that can be saved.
#[derive(Debug)]
pub struct QemuControl {
    qmp: Qmp,
    /// Where its state will go.
    save_to: Option<PathBuf>,
}

impl QemuControl {
    /// Takes the connection; a restored VM goes on when this is done.
    pub async fn new(mut qmp: Qmp, memory: Memory<'_>, interface: bool) -> Result<Self> {
        let save_to = match memory {
            Memory::Fresh => None,
            Memory::SavedTo(directory) => Some(directory.join(STATE_FILE)),
            Memory::RestoredFrom(directory) => {
                let path = directory.join(STATE_FILE);
                let state = File::open(&path).map_err(PathError::at("open", path))?;
                qmp.pass_fd(STATE_FILE, state.into()).await?;
                let mut control = Self { qmp, save_to: None };
                if interface {
                    control.hush().await?;
                }
                control.migrate("migrate-incoming").await?;
                return Ok(control);
            }
        };
        Ok(Self { qmp, save_to })
    }

    /// Keeps QEMU from announcing the interface, under the address of its snapshot, on
    /// the network to which it has come.
    async fn hush(&mut self) -> Result<()> {
        let parameters = json!({ "announce-rounds": 0 });
        self.qmp.execute("migrate-set-parameters", parameters).await.map(drop)
    }

    async fn save_to(&mut self, path: PathBuf) -> Result<()> {
        let state = File::create_new(&path).map_err(PathError::at("create", path))?;
        self.qmp.pass_fd(STATE_FILE, state.into()).await?;
        // No limit on the rate: this is a local file.
        let parameters = json!({ "max-bandwidth": u32::MAX });
        self.qmp.execute("migrate-set-parameters", parameters).await?;
        self.migrate("migrate").await
    }

    /// Runs a migration, out or in, with the descriptor passed before.
    async fn migrate(&mut self, command: &str) -> Result<()> {
        self.ignore_shared().await?;
        self.qmp.execute(command, json!({ "uri": format!("fd:{STATE_FILE}") })).await?;
        self.migrated().await
    }

    async fn ignore_shared(&mut self) -> Result<()> {
        let capability = json!({ "capability": "x-ignore-shared", "state": true });
        let arguments = json!({ "capabilities": [capability] });
        self.qmp.execute("migrate-set-capabilities", arguments).await.map(drop)
    }

    async fn migrated(&mut self) -> Result<()> {
        loop {
            let answer = self.qmp.execute("query-migrate", Value::Null).await?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let reason = answer["error-desc"].as_str().unwrap_or("no reason given");
                    return Err(Error::Refused {
                        vmm: "QEMU",
                        request: "a snapshot".into(),
                        message: fireclaw_host::escape(reason),
                    });
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Control for QemuControl {
    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            match self.save_to.take() {
                Some(path) => self.save_to(path).await,
                None => Err(Error::Refused {
                    vmm: "QEMU",
                    request: "a snapshot".into(),
                    message: "the VM was not launched to be saved".into(),
                }),
            }
        }
        .boxed()
    }
}
