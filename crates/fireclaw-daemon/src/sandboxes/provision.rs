//! What a VM gets before its agent: its disks in their places, and skills.
//!
//! All of it is done in the guest: a file system that a guest wrote is nothing for
//! the host to read.

use std::time::Duration;

use fireclaw_protocol::message::ExecRequest;
use fireclaw_vm::Commands;

use super::GUEST;
use super::exec::run_with;
use crate::{Error, Result};

/// How long it may take, a check of the workspace's file system included.
const LIMIT: Duration = Duration::from_secs(120);

/// How long programs in a VM may take to end and its disks to be written, when it is
/// about to be ended: a guest that does not want to may not keep it.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);

/// What has a VM ready to be ended; the second is for a guest program that does not
/// know the first, in a VM that is older than this program.
const LEAVE: [&[&str]; 2] = [&[GUEST, "leave"], &["sync"]];

/// What [`WORKSPACE`] exits with if the file system needs more than its journal.
const DAMAGED: u8 = 3;

/// Mounts the workspace, grown if its disk has grown. Slips that need no decision are
/// mended (e2fsck(8), `-p`).
const WORKSPACE: &str = "mkdir -p /workspace
mount -t ext4 -o nosuid,nodev /dev/vdb /workspace 2>/dev/null || {
    e2fsck -p /dev/vdb
    [ $? -le 2 ] && mount -t ext4 -o nosuid,nodev /dev/vdb /workspace || exit 3
}
resize2fs /dev/vdb >/dev/null 2>&1
chown agent: /workspace && chmod 0750 /workspace";

/// Mends a workspace at whatever cost.
const REPAIR: &str = "e2fsck -y /dev/vdb
[ $? -le 2 ]";

/// Mounts the scratch disk: whatever is written outside the workspace goes there, not
/// to memory. Each directory of the root gets an overlay of its own, because the root
/// itself is in use; /usr and the like keep what is in them.
const SCRATCH: &str = "set -e
scratch=/run/fireclaw/scratch
mkdir -m 0700 $scratch
mount -t ext4 -o nosuid,nodev,noatime,noinit_itable /dev/vdc $scratch
cd $scratch
mkdir -m 1777 tmp
mkdir -p containers
mkdir -m 1777 containers/rootless
{
    for name in etc home opt root srv usr var; do
        [ -d /$name ] && [ ! -L /$name ] || continue
        mkdir $name $name.work
        echo overlay /$name overlay lowerdir=/$name,upperdir=$scratch/$name,workdir=$scratch/$name.work
    done
    echo $scratch/tmp /tmp none bind
    [ ! -d /var/lib/containers ] || echo $scratch/containers /var/lib/containers none bind
} >table
[ ! -d root ] || chmod 0700 root
mount -a -T table";

/// Unpacks skills, in place of those that were there.
const SKILLS: &str = "set -e
rm -rf /run/fireclaw/skills
mkdir /run/fireclaw/skills
tar -x --no-same-owner -C /run/fireclaw/skills";

/// Mounts the workspace. If it is so damaged that mending it may lose something,
/// `keep` is called first: it keeps what there is.
pub async fn workspace(commands: &Commands, keep: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let cannot = |said: String| Error::Workspace(format!("it cannot be mounted: {said}"));
    match shell(commands, WORKSPACE, &[]).await? {
        Ok(()) => return Ok(()),
        Err((Some(DAMAGED), _)) => keep().await?,
        Err((_, said)) => return Err(cannot(said)),
    }
    for script in [REPAIR, WORKSPACE] {
        shell(commands, script, &[]).await?.map_err(|(_, said)| cannot(said))?;
    }
    Ok(())
}

/// Mounts the scratch disk.
pub async fn scratch(commands: &Commands) -> Result<()> {
    let done = shell(commands, SCRATCH, &[]).await?;
    done.map_err(|(_, said)| Error::Workspace(format!("the scratch disk: {said}")))
}

/// Puts skills, packed as a tar archive, where the agent looks for them.
pub async fn skills(commands: &Commands, archive: &[u8]) -> Result<()> {
    let done = shell(commands, SKILLS, archive).await?;
    done.map_err(|(_, said)| Error::Skills(format!("they cannot be unpacked: {said}")))
}

/// Has a VM end its programs and write its disks, so that it can be ended.
pub async fn leave(commands: &Commands) -> Result<()> {
    let mut said = String::new();
    for words in LEAVE {
        let argv = words.iter().map(|word| word.as_bytes().to_vec().into()).collect();
        let request = ExecRequest { argv, ..ExecRequest::default() };
        let code;
        (code, said) = run_with(commands, request, &[], LEAVE_LIMIT).await?;
        if code == Some(0) {
            return Ok(());
        }
    }
    Err(Error::Workspace(format!("what was written last may be lost: {}", shown(&said))))
}

/// The beginning of what a script said.
fn shown(said: &str) -> String {
    const SHOWN: usize = 300;
    fireclaw_host::escape(said.trim()).chars().take(SHOWN).collect()
}

/// Runs a script as root; if it fails, its status and the end of what it said.
async fn shell(
    commands: &Commands,
    script: &str,
    input: &[u8],
) -> Result<std::result::Result<(), (Option<u8>, String)>> {
    let argv = ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec().into());
    let request = ExecRequest { argv: argv.into(), ..ExecRequest::default() };
    let (code, said) = run_with(commands, request, input, LIMIT).await?;
    Ok(if code == Some(0) { Ok(()) } else { Err((code, shown(&said))) })
}
