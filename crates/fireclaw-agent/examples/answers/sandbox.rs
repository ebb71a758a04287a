//! A place where a model's commands can do no harm: name spaces of its own without a
//! network, this host's programs read-only, and an empty `/workspace`.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

/// Builds the root at the path `$1` and starts the program `$2` in it as an agent.
const ENTER: &str = r#"
set -e
hostname box-7f3
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
for name in usr bin sbin lib lib32 lib64 libx32 etc dev; do
    if [ -L /$name ]; then
        cp -P /$name $name
    elif [ -d /$name ]; then
        mkdir $name
        mount --rbind /$name $name
        [ $name = dev ] || mount -o remount,bind,ro $name
    fi
done
mkdir proc tmp var run root tools workspace
mount -t proc proc proc
mount -t tmpfs -o size=64m,mode=755 tmpfs workspace
ln -s /usr/bin/python3 tools/python
cp "$2" tools/agent
exec env -i HOME=/workspace LANG=C.UTF-8 PATH=/tools:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    chroot . /tools/agent --program
"#;

/// How long it may take until the agent runs.
const START: Duration = Duration::from_secs(20);

/// An agent in its sandbox, which ends with it.
pub struct Sandbox {
    pub child: Child,
    /// The agent, as this process sees it.
    inside: u32,
    _root: tempfile::TempDir,
}

impl Sandbox {
    pub async fn start() -> Result<Self> {
        let root = tempfile::tempdir()?;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts"]);
        command.args(["--fork", "--kill-child", "sh", "-c", ENTER, "sh"]);
        command.arg(root.path()).arg(std::env::current_exe()?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn().context("unshare(1) of util-linux")?;
        let outside = child.id().context("unshare ended")?;
        let begun = Instant::now();
        let inside = loop {
            ensure!(begun.elapsed() < START, "the agent did not start in name spaces of its own");
            match fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")) {
                Ok(text) if !text.trim().is_empty() => break text.trim().parse()?,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let is_agent = |root: &Path| root.join("tools/agent").exists();
        while !is_agent(Path::new(&format!("/proc/{inside}/root"))) {
            ensure!(begun.elapsed() < START, "the agent did not start in name spaces of its own");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { child, inside, _root: root })
    }

    /// Runs a command of the shell where the agent runs its own.
    pub async fn run(&self, command: &str) -> Result<Output> {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.inside.to_string()]);
        enter.args(["--user", "--mount", "--pid", "--net", "--ipc", "--uts", "--root"]);
        enter.args(["env", "-i", "PATH=/tools:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8"]);
        enter.args(["sh", "-c", &format!("cd /workspace && {command}")]);
        enter.output().await.context("nsenter(1) of util-linux")
    }
}
