//! Programs: the shell's commands and skills.

use std::path::Path;
use std::time::Duration;

use fireclaw_protocol::agent::Config;
use serde_json::Value;
use tokio::process::Command;

use crate::skills::Skill;
use crate::{oom, process};

/// The longest time a command may have, in seconds, whatever the configuration says.
const MAX_SECONDS: u32 = 24 * 60 * 60;

/// The longest address of a page, in bytes.
const MAX_URL: usize = 2048;

/// The largest page that is fetched, in bytes; the model gets its start and its end.
const MAX_PAGE: &str = "4194304";

/// Runs a command of the shell in the workspace.
pub async fn run_shell(
    workspace: &Path,
    config: &Config,
    command: String,
) -> Result<String, String> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).current_dir(workspace);
    run(shell, None, config).await
}

/// Runs a skill with its arguments as JSON on standard input. `SKILL_DIR` in its
/// environment says where its other files are.
pub async fn run_skill(
    workspace: &Path,
    config: &Config,
    skill: &Skill,
    arguments: &Value,
) -> Result<String, String> {
    let mut program = Command::new(skill.folder.join("run"));
    program.current_dir(workspace).env("SKILL_DIR", &skill.folder);
    run(program, Some(arguments.to_string().into_bytes()), config).await
}

/// Fetches a page with curl, which the VM's network policy lets through or not.
pub async fn fetch(workspace: &Path, config: &Config, url: &str) -> Result<String, String> {
    if url.len() > MAX_URL {
        return Err(format!("The address has more than {MAX_URL} bytes."));
    }
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--location", "--max-redirs", "5"])
        // The policy of the network is for the VM, not for a variable.
        .args(["--noproxy", "*", "--proto", "=http,https", "--max-filesize", MAX_PAGE])
        .args(["--write-out", "\nHTTP status %{http_code}", "--", url])
        .current_dir(workspace);
    run(curl, None, config).await
}

async fn run(command: Command, input: Option<Vec<u8>>, config: &Config) -> Result<String, String> {
    let seconds = config.command_seconds.clamp(1, MAX_SECONDS);
    let limit = Duration::from_secs(seconds.into());
    let kills = oom::kills();
    let ended = process::run(command, input, limit)
        .await
        .map_err(|e| format!("It could not be run: {e}."))?;
    let how = match ended.status {
        // The status alone would tell a model nothing.
        Some(status) if !status.success() && oom::kills() > kills => {
            format!("{status}: killed, because the machine ran out of memory")
        }
        // As in `exit status: 0`, and `signal: 9 (SIGKILL)`.
        Some(status) => status.to_string(),
        None => format!("killed, unfinished, after {seconds} seconds"),
    };
    Ok(format!(
        "{}\n{how}",
        if ended.output.is_empty() { "(no output)" } else { ended.output.trim_end() }
    ))
}
