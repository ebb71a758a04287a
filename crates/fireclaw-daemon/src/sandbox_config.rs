//! What a named sandbox is made from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use fireclaw_policy::Network;
use fireclaw_protocol::message::{EnvVar, ExecRequest, MainRequest, Terminal, TerminalSize};
use fireclaw_sandbox::{Publication, SandboxSpec};
use serde::{Deserialize, Serialize};

/// What a named sandbox is made from. It stays the same for as long as the sandbox is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// The image, by its name in the data directory. The sandbox keeps this one, also when
    /// the name stands for another.
    pub image: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The size of its disk, in MiB; it takes what is written.
    pub disk_mib: u64,
    /// What it may reach.
    #[serde(default)]
    pub network: Network,
    /// The program and its arguments; without one it stays up until it is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Variables beside the usual ones, of every command in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory to start in; the user's home if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// As whom; root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The kind of its terminal, if it is to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// Whether the program reads what who is attached writes.
    #[serde(default)]
    pub input: bool,
    /// Ports of the host that lead to ports of the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publication>,
    /// What happens when the program has ended.
    #[serde(default)]
    pub restart: Restart,
    /// Whether it is removed when the program has ended.
    #[serde(default)]
    pub remove: bool,
    /// Linux's number of the signal that has the program end; SIGTERM if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
}

/// What happens when the program of a sandbox has ended, or its VM is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Restart {
    /// Nothing.
    #[default]
    No,
    /// It is started again if it failed; so often at most, if that is limited.
    OnFailure(Option<u32>),
    /// It is started again, and whenever the daemon starts.
    Always,
    /// The same, unless it was stopped.
    UnlessStopped,
}

impl Restart {
    /// Whether it is started again after it ended so, having been so often before.
    pub fn again(self, failed: bool, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => failed && most.is_none_or(|most| restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }

    /// Whether the daemon starts it when it starts itself, although it was stopped.
    pub fn even_if_stopped(self) -> bool {
        self == Self::Always
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(None) => f.write_str("on-failure"),
            Self::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it must be no, on-failure[:N], always or unless-stopped".to_owned();
        match text.split_once(':') {
            Some(("on-failure", most)) => {
                Ok(Self::OnFailure(Some(most.parse().map_err(|_| wrong())?)))
            }
            None if text == "no" => Ok(Self::No),
            None if text == "on-failure" => Ok(Self::OnFailure(None)),
            None if text == "always" => Ok(Self::Always),
            None if text == "unless-stopped" => Ok(Self::UnlessStopped),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Restart {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Restart> for String {
    fn from(restart: Restart) -> Self {
        restart.to_string()
    }
}

impl SandboxConfig {
    /// The smallest disk, in MiB.
    pub const MIN_DISK_MIB: u64 = 64;

    /// The largest, in MiB.
    pub const MAX_DISK_MIB: u64 = 16 * 1024 * 1024;

    /// The sandbox, without its disk.
    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            image: self.image.clone(),
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            network: self.network.clone(),
            ..SandboxSpec::default()
        }
    }

    /// Its main command, if it has one.
    pub fn main(&self) -> Option<MainRequest> {
        if self.command.is_empty() {
            return None;
        }
        let command = ExecRequest {
            argv: self.command.iter().map(|word| word.as_bytes().to_vec().into()).collect(),
            env: self.variables(),
            workdir: self.workdir.as_ref().map(|path| path.as_bytes().to_vec().into()),
            user: self.user.clone(),
            terminal: self.terminal.as_ref().map(|kind| Terminal {
                kind: kind.as_bytes().to_vec().into(),
                size: TerminalSize::default(),
            }),
            ..ExecRequest::default()
        };
        Some(MainRequest { command, input: self.input })
    }

    /// Another command in it: what it does not say is as for the main one.
    pub fn complete(&self, request: &mut ExecRequest) {
        let mut env = self.variables();
        // What was asked for comes later and wins.
        env.append(&mut request.env);
        request.env = env;
        if request.user.is_none() {
            request.user.clone_from(&self.user);
        }
        if request.workdir.is_none() {
            request.workdir = self.workdir.as_ref().map(|path| path.as_bytes().to_vec().into());
        }
    }

    fn variables(&self) -> Vec<EnvVar> {
        let variable = |(name, value): (&String, &String)| EnvVar {
            name: name.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
        };
        self.env.iter().map(variable).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_written() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for wrong in ["", "on-failure:", "on-failure:-1", "always:2", "yes"] {
            assert!(wrong.parse::<Restart>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_ended_is_started_again_as_the_policy_says() {
        let on_failure = Restart::OnFailure(Some(2));
        for (policy, failed, restarts, again) in [
            (Restart::No, true, 0, false),
            (on_failure, true, 1, true),
            (on_failure, true, 2, false),
            (on_failure, false, 0, false),
            (Restart::OnFailure(None), true, 1000, true),
            (Restart::Always, false, 1000, true),
            (Restart::UnlessStopped, false, 0, true),
        ] {
            assert_eq!(policy.again(failed, restarts), again, "{policy} {failed} {restarts}");
        }
    }

    #[test]
    fn a_command_takes_what_it_does_not_say_from_its_sandbox() {
        let config: SandboxConfig = serde_json::from_value(serde_json::json!({
            "image": "base", "cpus": 1, "memory_mib": 256, "disk_mib": 1024,
            "env": {"A": "1", "B": "2"}, "user": "agent", "workdir": "/srv",
        }))
        .unwrap();
        assert_eq!((config.main(), config.restart), (None, Restart::No));
        let own = |text: &str| text.as_bytes().to_vec().into();
        let mut request = ExecRequest {
            env: vec![EnvVar { name: own("A"), value: own("3") }],
            workdir: Some(own("/")),
            ..ExecRequest::default()
        };
        config.complete(&mut request);
        let env: Vec<_> = request.env.iter().map(|it| (&it.name[..], &it.value[..])).collect();
        assert_eq!(env, [(&b"A"[..], &b"1"[..]), (b"B", b"2"), (b"A", b"3")]);
        assert_eq!((request.user.as_deref(), request.workdir), (Some("agent"), Some(own("/"))));
    }
}
