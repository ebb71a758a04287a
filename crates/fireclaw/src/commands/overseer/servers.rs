//! The servers that an overseer brings along: for chat, and for a model.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fireclaw_image::Home;
use fireclaw_irc::{PrivateServer, server};
use fireclaw_llm::local::{self, LocalModel, LocalServer};
use fireclaw_llm::{Key, ServerConfig, ServerKind};
use fireclaw_say::say;
use fireclaw_template::shipped;

use super::Options;
use super::errors::{irc_error, model_error};
use crate::error::{CliError, Result};

/// A private IRC server on this port.
pub async fn chat(home: &Home, port: u16) -> Result<PrivateServer> {
    let directory = directory(home);
    std::fs::create_dir_all(&directory).map_err(|e| CliError::file("create", &directory, &e))?;
    PrivateServer::start(&directory, &at(port)).await.map_err(irc_error)
}

fn directory(home: &Home) -> PathBuf {
    home.root().join("irc")
}

fn at(port: u16) -> server::Options {
    server::Options { port: Some(port), ..server::Options::default() }
}

/// Keeps a private server alive, on the same port; why that cannot be done.
pub async fn keep_chat(server: Option<PrivateServer>, home: &Home) -> fireclaw_irc::Error {
    let Some(mut server) = server else { return std::future::pending().await };
    let (directory, options) = (directory(home), at(server.port()));
    let mut patience = Patience::default();
    loop {
        let death = server.died().await;
        if !patience.allows("the private IRC server", &death) {
            return death;
        }
        drop(server);
        server = match PrivateServer::start(&directory, &options).await {
            Ok(server) => server,
            Err(e) => return e,
        };
    }
}

/// Keeps a local model alive, at the same address; why that cannot be done.
pub async fn keep_model(server: Option<LocalServer>) -> fireclaw_llm::Error {
    let Some(mut server) = server else { return std::future::pending().await };
    let mut patience = Patience::default();
    loop {
        let death = server.died().await;
        if !patience.allows("the model server", &death) {
            return death;
        }
        if let Err(e) = server.restart().await {
            return e;
        }
    }
}

/// Who dies often in a short time is given up.
struct Patience {
    since: Instant,
    deaths: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { since: Instant::now(), deaths: 0 }
    }
}

impl Patience {
    fn allows(&mut self, what: &str, death: &impl Display) -> bool {
        const STABLE: Duration = Duration::from_secs(10);
        const MOST: u32 = 5;
        self.deaths = if self.since.elapsed() > STABLE { 1 } else { self.deaths + 1 };
        self.since = Instant::now();
        let again = self.deaths <= MOST;
        if again {
            say!("fireclaw: {what} is started again: {death}");
        }
        again
    }
}

/// Where models are: what was named, or a server of our own if nothing answers there.
pub async fn model(args: &Options, home: &Home) -> Result<(ServerConfig, Option<LocalServer>)> {
    let key = std::env::var("FIRECLAW_MODEL_KEY").ok().filter(|key| !key.is_empty());
    let url = args.model_server.clone();
    let named = ServerConfig { kind: ServerKind::Auto, url, key: key.map(Key::new) };
    if !args.local_model || fireclaw_llm::detect(&named.url, named.key.as_ref()).await.is_ok() {
        return Ok((named, None));
    }
    let mut last = String::new();
    let mut progress = |what: &str, done: u64, of: u64| {
        let now = format!("fireclaw: fetching {what}: {} of {} MiB", done >> 20, of >> 20);
        if now != last && (done == of || (done >> 20).is_multiple_of(64)) {
            say!("{now}");
            last = now;
        }
    };
    let program = local::fetch_server(home.root(), &mut progress).await.map_err(model_error)?;
    let file = local::fetch_model(home.root(), LocalModel::QwenCoder, &mut progress);
    let file = file.await.map_err(model_error)?;
    let options = local::Options {
        program,
        model: file,
        names: names(),
        context_tokens: 8192,
        threads: None,
    };
    let server = LocalServer::start(&options).await.map_err(model_error)?;
    say!("fireclaw: a small model of our own answers for all models");
    Ok((server.config(), Some(server)))
}

/// The names that our own model answers to: those of all templates that ship. Better a
/// small one than none.
fn names() -> Vec<String> {
    let mut names = vec![LocalModel::QwenCoder.name().to_owned()];
    for (name, text) in shipped::TEMPLATES {
        let source = fireclaw_template::Source {
            name,
            file: name,
            text: text.as_bytes(),
            format: fireclaw_template::Format::Toml,
            directory: None,
        };
        if let Ok(template) = fireclaw_template::parse(&source).template {
            names.extend(template.model);
        }
    }
    names
}
