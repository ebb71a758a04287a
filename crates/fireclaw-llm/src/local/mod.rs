//! A small model server of our own: llama.cpp with a small model, fetched once, for tests
//! and for a first try without Ollama.

mod download;
mod fetch;
mod package;
mod partial;
mod pins;
mod processor;
mod server;

pub use fetch::{Progress, fetch_model, fetch_server};
pub use pins::LocalModel;
pub use server::{LocalServer, Options};
