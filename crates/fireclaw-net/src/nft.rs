//! Runs `nft`, which takes rules as JSON on standard input and sets them in one
//! transaction: all or nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

fn failed(reason: impl Into<String>) -> Error {
    Error::Rules { reason: reason.into() }
}

/// Obeys commands as libnftables-json(5) has them, all or none. What is listed is returned.
pub(crate) fn run(commands: Vec<Value>) -> Result<Vec<Value>> {
    Nft::start()?.run(commands)
}

/// An `nft` that waits for its commands: it takes longer to start than to obey.
#[derive(Debug)]
pub(crate) struct Nft {
    child: Option<Child>,
}

impl Nft {
    /// Starts one, for the network namespace of this thread.
    pub fn start() -> Result<Self> {
        let Some(program) = program("nft") else {
            return Err(Error::Missing { program: "nft".into(), package: "nftables".into() });
        };
        let child = Command::new(program)
            .args(["-j", "-f", "-"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("nft does not start: {e}")))?;
        Ok(Self { child: Some(child) })
    }

    /// As [`run`].
    pub fn run(mut self, commands: Vec<Value>) -> Result<Vec<Value>> {
        let mut child = self.child.take().ok_or_else(|| failed("nft was not started"))?;
        let input = json!({ "nftables": commands }).to_string();
        // nft reads all of it before it says anything. If it ended, its words say why.
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() || written.is_none_or(|written| written.is_err()) {
            let words = String::from_utf8_lossy(&output.stderr);
            let line = words.lines().find(|line| line.contains("rror")).unwrap_or(words.trim());
            return Err(failed(format!("nft: {line}")));
        }
        // Each list is a document of its own.
        let mut listed = Vec::new();
        for document in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>() {
            let document = document.map_err(|e| failed(format!("nft said {e}")))?;
            listed.extend(document["nftables"].as_array().cloned().unwrap_or_default());
        }
        Ok(listed)
    }
}

impl Drop for Nft {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
