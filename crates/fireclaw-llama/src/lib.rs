//! A small model server of our own: llama.cpp with a small model, fetched once, for tests
//! and for a first try without Ollama.

mod download;
mod error;
mod fetch;
mod package;
mod partial;
mod pins;
mod processor;
mod server;
mod source;

pub use error::{Error, Result};
pub use fetch::{Progress, Stage, compile_server, fetch_model, fetch_server};
pub use pins::LocalModel;
pub use server::{LocalServer, Options};
