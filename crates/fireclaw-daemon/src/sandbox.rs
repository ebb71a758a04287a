//! The life of a named sandbox: a machine of somebody's own, that stays until it is removed.

mod follow;
mod life;
mod output;

use fireclaw_host::PathError;
use fireclaw_image::Silent;
use fireclaw_sandbox::disks;

use crate::Result;
use crate::sandboxes::Vms;
use crate::shared::Shared;
use crate::state::SandboxRow;

pub use life::{Order, SandboxHandle, Session, begin, clear};

/// The file of what its program wrote, in its directory.
pub const LOG: &str = "output.log";

/// Removes the disk, the log, the pin and the row of a sandbox that has no VM.
pub async fn forget(shared: &Shared, vms: &Vms, row: &SandboxRow) -> Result<()> {
    let directory = vms.sandbox_directory(&row.id);
    let removed = disks::apart(move || {
        // First under another name: what is still to be written to its log finds no directory.
        let gone = directory.with_extension("gone");
        let _ = std::fs::rename(&directory, &gone);
        Ok(match std::fs::remove_dir_all(&gone) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(PathError::at("remove", gone)(e))
            }
            _ => Ok(()),
        })
    });
    removed.await??;
    unpin(shared, &row.id).await?;
    shared.state.borrow().remove_sandbox(&row.id)
}

/// Lets go of the image of a sandbox.
async fn unpin(shared: &Shared, id: &str) -> Result<()> {
    let (home, id) = (shared.config.home.clone(), id.to_owned());
    Ok(disks::apart(move || Ok(fireclaw_image::unpin(&home, &id, &Silent)?)).await?)
}
