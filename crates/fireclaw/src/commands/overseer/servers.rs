//! The servers that an overseer brings along: for chat, and for a model.

use std::convert::Infallible;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fireclaw_host::Secret;
use fireclaw_image::Home;
use fireclaw_irc::{PrivateServer, server};
use fireclaw_llama::{LocalModel, LocalServer, Stage};
use fireclaw_llm::{ServerConfig, ServerKind};
use fireclaw_say::say;
use fireclaw_template::shipped;

use super::Options;
use super::errors::{irc_error, model_error};
use crate::error::Result;

/// A private IRC server, and what lets people and agents in.
pub struct Chat {
    /// The server.
    pub server: PrivateServer,
    /// Its password.
    pub password: Secret,
    /// The file that the password is in.
    pub file: PathBuf,
}

/// A private IRC server on the port that was asked for, or on another if it is taken.
pub async fn chat(home: &Home, args: &Options) -> Result<Chat> {
    let directory = home.root().join("irc");
    let password = server::own_password(&directory).map_err(irc_error)?;
    let options = server::Options {
        port: Some(args.port).filter(|port| *port != 0),
        any_port: true,
        password: Some(password.clone()),
        // Made before anybody can connect: nobody is their operator.
        channels: vec![args.channel.clone(), args.agents_channel.clone()],
        program: Some(home.root().join("tools/ngircd/usr/sbin/ngircd")),
        ..server::Options::default()
    };
    let server = PrivateServer::start(&directory, &options).await.map_err(irc_error)?;
    if args.port != 0 && server.port() != args.port {
        say!(
            "fireclaw: port {} is taken; the private IRC server takes {} instead",
            args.port,
            server.port()
        );
    }
    Ok(Chat { server, password, file: directory.join(server::PASSWORD_FILE) })
}

/// A server that comes along with the overseer.
pub trait Ours {
    /// Why it died or does not start.
    type Error: Display;
    /// What people call it.
    const NAME: &str;

    /// Waits until it ends by itself, and says why.
    async fn died(&mut self) -> Self::Error;

    /// Starts it again, where it was.
    async fn restart(&mut self) -> std::result::Result<(), Self::Error>;
}

impl Ours for PrivateServer {
    type Error = fireclaw_irc::Error;
    const NAME: &str = "the private IRC server";

    async fn died(&mut self) -> Self::Error {
        PrivateServer::died(self).await
    }

    async fn restart(&mut self) -> std::result::Result<(), Self::Error> {
        PrivateServer::restart(self).await
    }
}

impl Ours for LocalServer {
    type Error = fireclaw_llama::Error;
    const NAME: &str = "the model server";

    async fn died(&mut self) -> Self::Error {
        LocalServer::died(self).await
    }

    async fn restart(&mut self) -> std::result::Result<(), Self::Error> {
        LocalServer::restart(self).await
    }
}

/// Keeps a server alive, where it was, for ever: its death never ends the overseer, as a
/// guest's question may be what it dies of. Why it died or does not start is said once,
/// until it has stood for a while.
pub async fn keep<S: Ours>(server: Option<S>) -> Infallible {
    let Some(mut server) = server else { return std::future::pending().await };
    let mut retry = Retry::default();
    loop {
        let started = Instant::now();
        let mut reason = server.died().await;
        if started.elapsed() >= Retry::STABLE {
            retry = Retry::default();
        }
        loop {
            let (wait, first) = retry.next();
            if first {
                say!("fireclaw: restarting {}: {reason}", S::NAME);
            }
            tokio::time::sleep(wait).await;
            match server.restart().await {
                Ok(()) => break,
                Err(e) => reason = e,
            }
        }
    }
}

/// How long to wait before a server of ours is started again.
#[derive(Debug, Default)]
struct Retry {
    attempts: u32,
}

impl Retry {
    /// Who lived that long died of something else than the last time.
    const STABLE: Duration = Duration::from_secs(60);
    /// The most between two attempts: a person who mended something does not wait longer.
    const MOST: Duration = Duration::from_secs(30);

    /// How long to wait, and whether it is the first time: at once, then from half a second
    /// on twice as long each time.
    fn next(&mut self) -> (Duration, bool) {
        let wait = match self.attempts {
            0 => Duration::ZERO,
            n => (Duration::from_millis(250) * 2_u32.pow(n.min(10))).min(Self::MOST),
        };
        self.attempts = self.attempts.saturating_add(1);
        (wait, wait.is_zero())
    }
}

/// Where models are: what was named, or a server of our own if nothing answers there.
pub async fn model(args: &Options, home: &Home) -> Result<(ServerConfig, Option<LocalServer>)> {
    let key = std::env::var("FIRECLAW_MODEL_KEY").ok().filter(|key| !key.is_empty());
    let url = args.model_server.clone();
    let (key, ca_file) = (key.map(Secret::new), args.model_ca.clone());
    let named = ServerConfig { kind: ServerKind::Auto, url, key, ca_file };
    if !args.local_model || fireclaw_llm::detect(&named).await.is_ok() {
        return Ok((named, None));
    }
    let mut last = String::new();
    let mut progress = |stage: Stage<'_>| {
        let (now, is_worth_a_line) = match stage {
            Stage::Fetching { what, bytes, of } => (
                format!("fireclaw: fetching {what}: {} of {} MiB", bytes >> 20, of >> 20),
                bytes == of || (bytes >> 20).is_multiple_of(64),
            ),
            Stage::Compiling { percent } => (
                format!("fireclaw: compiling llama-server for this processor, once: {percent} %"),
                percent.is_multiple_of(10),
            ),
        };
        if now != last && is_worth_a_line {
            say!("{now}");
            last = now;
        }
    };
    let program =
        fireclaw_llama::fetch_server(home.root(), &mut progress).await.map_err(model_error)?;
    let file = fireclaw_llama::fetch_model(home.root(), LocalModel::QwenCoder, &mut progress);
    let file = file.await.map_err(model_error)?;
    let options = fireclaw_llama::Options {
        program,
        model: file,
        names: names(),
        context_tokens: 8192,
        threads: None,
    };
    let server = LocalServer::start(&options).await.map_err(model_error)?;
    say!("fireclaw: a small local model answers for all models");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_is_tried_ever_more_rarely_and_told_of_once() {
        let mut retry = Retry::default();
        let all: Vec<_> = (0..100).map(|_| retry.next()).collect();
        assert_eq!(all[0], (Duration::ZERO, true));
        assert_eq!(all[1], (Duration::from_millis(500), false));
        assert!(all.windows(2).all(|two| two[0].0 <= two[1].0));
        assert_eq!(all[99], (Retry::MOST, false));
    }
}
