//! Runs `nft`, which takes rules as JSON on standard input and sets them in one
//! transaction: all or nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{Error, Result};

/// The program, also where only root looks.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Obeys commands as libnftables-json(5) has them, all or none. What is listed is returned.
pub(crate) fn run(commands: Vec<Value>) -> Result<Vec<Value>> {
    let failed = |reason: String| Error::Rules { reason };
    let Some(program) = program("nft") else {
        return Err(Error::Missing { program: "nft".into(), package: "nftables".into() });
    };
    let mut child = Command::new(program)
        .args(["-j", "-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("nft does not start: {e}")))?;
    let input = json!({ "nftables": commands }).to_string();
    // nft reads all of it before it says anything. If it ended, its words say why.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() || written.is_none_or(|written| written.is_err()) {
        let words = String::from_utf8_lossy(&output.stderr);
        let line = words.lines().find(|line| line.contains("rror")).unwrap_or(words.trim());
        return Err(failed(format!("nft: {line}")));
    }
    if output.stdout.is_empty() {
        return Ok(Vec::new());
    }
    let answer: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("nft said {e}")))?;
    Ok(answer["nftables"].as_array().cloned().unwrap_or_default())
}
