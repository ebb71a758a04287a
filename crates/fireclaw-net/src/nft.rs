//! Runs `nft`, which takes rules as JSON on standard input and sets them in one
//! transaction: all or nothing.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use fireclaw_host::find_program;
use serde_json::{Value, json};

use crate::{Error, Result};

fn failed(reason: impl Into<String>) -> Error {
    Error::Rules { reason: reason.into() }
}

/// Obeys commands as libnftables-json(5) has them, all or none. What is listed is returned.
pub(crate) fn run(commands: Vec<Value>) -> Result<Vec<Value>> {
    Nft::start(SET)?.obey(&commands)
}

/// Obeys commands; if the kernel does not, says what it lacks.
pub(crate) fn set(commands: &[Value]) -> Result<()> {
    Nft::waiting()?.set(commands)
}

/// Says what the kernel would, and changes nothing.
pub(crate) fn check(commands: &[Value]) -> Result<()> {
    Nft::start(CHECK)?.set(commands)
}

const SET: &[&str] = &["-j", "-f", "-"];
const CHECK: &[&str] = &["-j", "-c", "-f", "-"];

/// An `nft` that waits for its commands: it takes longer to start than to obey.
#[derive(Debug)]
pub(crate) struct Nft {
    child: Option<Child>,
}

impl Nft {
    /// One that [sets](Nft::set) rules, for the network namespace of this thread.
    pub fn waiting() -> Result<Self> {
        Self::start(SET)
    }

    fn start(arguments: &[&str]) -> Result<Self> {
        let program = find_program("", "nft").map_err(Error::missing("nftables"))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::system("starting nft"))?;
        Ok(Self { child: Some(child) })
    }

    /// As [`set`].
    pub fn set(self, commands: &[Value]) -> Result<()> {
        let error = match self.obey(commands) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match (lacking(commands), error) {
            (Some(part), Error::Rules { reason }) => {
                Err(failed(format!("this kernel lacks {part} ({reason})")))
            }
            (_, error) => Err(error),
        }
    }

    fn obey(mut self, commands: &[Value]) -> Result<Vec<Value>> {
        let mut child = self.child.take().ok_or_else(|| failed("nft was not started"))?;
        let input = json!({ "nftables": commands }).to_string();
        // nft reads all of it before it says anything. If it ended, its words say why.
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
        if output.status.code().is_none() {
            return Err(Error::system("running nft")(output.status));
        }
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

/// Parts of the kernel, by words of the commands that need them. Of a command that has
/// several, the first one is what no other needs.
const PARTS: [(&str, &str); 10] = [
    ("\"netdev\"", "nf_tables for devices (NF_TABLES_NETDEV)"),
    ("\"ct count\"", "nft_connlimit"),
    ("\"fib\"", "nft_fib_inet"),
    ("\"dnat\":", "nft_nat"),
    ("\"masquerade\"", "nft_masq"),
    ("\"reject\"", "nft_reject_inet"),
    ("\"ct\"", "nft_ct"),
    ("\"type\":\"nat\"", "nft_chain_nat"),
    ("\"size\"", "sets that packets change (nft_dynset)"),
    ("\"table\":{", "nf_tables (NF_TABLES_INET)"),
];

/// What the first command needs that the kernel does not take.
fn lacking(commands: &[Value]) -> Option<&'static str> {
    let taken = |end: &usize| {
        let some = commands.get(..*end).unwrap_or_default();
        Nft::start(CHECK).and_then(|nft| nft.obey(some)).is_ok()
    };
    let end = (1..=commands.len()).find(|end| !taken(end))?;
    let refused = commands.get(end - 1)?.to_string();
    PARTS.iter().find(|(word, _)| refused.contains(word)).map(|(_, part)| *part)
}
