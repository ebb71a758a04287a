//! Which server, and what opens it.

use std::path::PathBuf;

use fireclaw_host::Secret;
use serde::Deserialize;

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
    pub key: Option<Secret>,
    /// Certificates (PEM) that are trusted beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}
