//! A server whose API is found out.

use std::fmt;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::http::Http;
use crate::{
    Abilities, ChatModel, ChatReply, ChatRequest, Error, ModelInfo, Ollama, OnText, OpenAi, Result,
    ServerConfig, ServerKind,
};

/// Asks which API the server at a URL speaks.
///
/// # Errors
/// [`Error::Down`] and others of a request; [`Error::BadReply`] if it is neither.
pub async fn detect(config: &ServerConfig) -> Result<ServerKind> {
    let http = Http::of(config, &config.url)?;
    if http.url().ends_with("/v1") {
        return Ok(ServerKind::OpenAi);
    }
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "version")]
        _version: String,
    }
    // Ollama speaks OpenAI's API too, but its own tells and takes more.
    match http.get::<Version>("/api/version", &[]).await {
        Ok(_) => return Ok(ServerKind::Ollama),
        Err(Error::Refused { .. } | Error::BadReply { .. }) => {}
        Err(error) => return Err(error),
    }
    match OpenAi::at(config)?.models().await {
        // A server that loads its model, or wants a key, is one all the same.
        Ok(_) | Err(Error::Refused { status: 401 | 403 | 429 | 503, .. }) => Ok(ServerKind::OpenAi),
        Err(Error::Refused { .. } | Error::BadReply { .. }) => Err(Error::BadReply {
            url: http.url().to_owned(),
            problem: "it speaks neither Ollama's API nor OpenAI's".into(),
        }),
        Err(error) => Err(error),
    }
}

/// A server as it is configured. It need not be up yet.
pub struct Server {
    config: ServerConfig,
    model: OnceCell<Box<dyn ChatModel>>,
}

impl Server {
    /// Nothing is asked before the first request.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::Client`].
    pub fn new(config: ServerConfig) -> Result<Self> {
        Http::of(&config, &config.url)?;
        Ok(Self { config, model: OnceCell::new() })
    }

    async fn model(&self) -> Result<&dyn ChatModel> {
        let config = &self.config;
        let found = self.model.get_or_try_init(async || -> Result<Box<dyn ChatModel>> {
            let kind = match config.kind {
                ServerKind::Auto => detect(config).await?,
                known => known,
            };
            let model: Box<dyn ChatModel> = match kind {
                ServerKind::Ollama => Box::new(Ollama::at(config)?),
                _ => Box::new(OpenAi::at(config)?),
            };
            Ok(model)
        });
        Ok(found.await?.as_ref())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ChatModel for Server {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>> {
        Box::pin(async { self.model().await?.models().await })
    }

    fn abilities<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<Abilities>> {
        Box::pin(async move { self.model().await?.abilities(model).await })
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        on_text: OnText<'a>,
    ) -> BoxFuture<'a, Result<ChatReply>> {
        Box::pin(async move { self.model().await?.chat(request, on_text).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_nowhere() {
        let config: ServerConfig =
            serde_json::from_str(r#"{"url": "http://x", "key": "s3cret"}"#).unwrap();
        assert_eq!(config.kind, ServerKind::Auto);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!format!("{:?}", Server::new(config).unwrap()).contains("s3cret"));
    }
}
