//! What an image says about how it is run (OCI image configuration, version 1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How an image is run, unless somebody says otherwise: Docker's ENV, ENTRYPOINT, CMD, USER,
/// WORKDIR, STOPSIGNAL, EXPOSE and VOLUME.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Variables, as `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program that every command is given to, with its first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command that is run if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The user, by name or number, maybe with a group: `1000:1000`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The working directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workdir: String,
    /// The signal that asks it to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// The ports that it serves, as `80/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The folders whose content it keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
}

impl ImageConfig {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The part of a configuration that says how to run it. All of it may be absent or `null`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Execution {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

impl From<Execution> for ImageConfig {
    fn from(from: Execution) -> Self {
        Self {
            env: from.env.unwrap_or_default(),
            entrypoint: from.entrypoint.unwrap_or_default(),
            cmd: from.cmd.unwrap_or_default(),
            user: from.user.unwrap_or_default(),
            workdir: from.working_dir.unwrap_or_default(),
            stop_signal: from.stop_signal.filter(|signal| !signal.is_empty()),
            ports: from.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: from.volumes.unwrap_or_default().into_keys().collect(),
        }
    }
}
