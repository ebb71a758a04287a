//! Which server, and what opens it.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// A secret that opens a server. It is shown nowhere.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The API that a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// Found out at the first request.
    #[default]
    Auto,
    /// Ollama's own.
    Ollama,
    /// OpenAI's, as llama.cpp, vLLM and others speak it.
    OpenAi,
}

/// Where models are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The API.
    #[serde(default)]
    pub kind: ServerKind,
    /// The address, with or without `/v1`.
    pub url: String,
    /// Sent as a bearer token.
    #[serde(default)]
    pub key: Option<Key>,
    /// Certificates (PEM) that are trusted beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}
