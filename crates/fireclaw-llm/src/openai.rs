//! Servers that speak OpenAI's API: llama.cpp, vLLM and others.

mod wire;

use fireclaw_host::Secret;
use futures_util::future::BoxFuture;

use crate::chat::{MAX_MODELS, Room};
use crate::error::escape;
use crate::http::{Http, Lines, NO_JSON};
use crate::{
    Abilities, ChatModel, ChatReply, ChatRequest, Error, ModelInfo, OnText, Result, ServerConfig,
};

/// A server that speaks OpenAI's API.
#[derive(Debug)]
pub struct OpenAi {
    http: Http,
}

impl OpenAi {
    /// The server at `url`, given with or without `/v1`.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::Client`].
    pub fn new(url: &str, key: Option<Secret>) -> Result<Self> {
        let url = url.trim().trim_end_matches('/');
        let root = url.strip_suffix("/v1").unwrap_or(url);
        Ok(Self { http: Http::new(root, key.as_ref())? })
    }

    pub(crate) fn at(config: &ServerConfig) -> Result<Self> {
        let url = config.url.trim().trim_end_matches('/');
        Ok(Self { http: Http::of(config, url.strip_suffix("/v1").unwrap_or(url))? })
    }

    async fn known(&self) -> Result<Vec<wire::Model>> {
        let mut known = self.http.get::<wire::Models>("/v1/models", &[]).await?.data;
        known.truncate(MAX_MODELS);
        Ok(known)
    }

    /// A refusal because the model is missing says which ones there are. The server's own
    /// list decides: 404 may also be a wrong path, or a proxy's.
    async fn explain(&self, model: &str, error: Error) -> Error {
        if !matches!(error, Error::Refused { status: 404, .. }) {
            return error;
        }
        match self.known().await {
            Ok(known) if !known.is_empty() && !known.iter().any(|one| one.answers_to(model)) => {
                Error::ModelMissing { model: escape(model), known: wire::names(&known) }
            }
            _ => error,
        }
    }

    async fn ask_abilities(&self, model: &str) -> Result<Abilities> {
        // A server answers for any name if it has one model only (llama.cpp), so the name
        // is looked up. One that lists nothing is taken at its word.
        let known = match self.known().await {
            Err(Error::Refused { status: 404 | 405 | 501, .. }) => Vec::new(),
            known => known?,
        };
        let listed = known.iter().find(|one| one.answers_to(model));
        if listed.is_none() && !known.is_empty() {
            let known = wire::names(&known);
            return Err(Error::ModelMissing { model: escape(model), known });
        }
        let mut abilities = match self.http.get::<wire::Props>("/props", &[("model", model)]).await
        {
            Ok(props) => props.abilities(),
            // Not llama.cpp. What cannot call tools is found out at the first call.
            Err(Error::Refused { status: 400..500, .. } | Error::BadReply { .. }) => Abilities {
                native_tools: true,
                context_tokens: listed.and_then(wire::Model::context_tokens),
            },
            Err(error) => return Err(error),
        };
        abilities.native_tools &= !listed.is_some_and(wire::Model::is_small);
        Ok(abilities)
    }

    async fn ask(&self, request: &ChatRequest, on_text: OnText<'_>) -> Result<ChatReply> {
        let body = wire::Request::new(request);
        match self.http.stream("/v1/chat/completions", &body).await {
            Ok(lines) => read(lines, on_text).await,
            Err(error) => Err(self.explain(&request.model, error).await),
        }
    }
}

impl ChatModel for OpenAi {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>> {
        Box::pin(async {
            let infos = self.known().await?.into_iter().flat_map(wire::Model::infos);
            Ok(infos.take(MAX_MODELS).collect())
        })
    }

    fn abilities<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<Abilities>> {
        Box::pin(self.ask_abilities(model))
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        on_text: OnText<'a>,
    ) -> BoxFuture<'a, Result<ChatReply>> {
        Box::pin(self.ask(request, on_text))
    }
}

/// Reads server-sent events, each one line of JSON after `data:`. A server that does not
/// stream answers with one document, over one line or many.
async fn read(mut lines: Lines, on_text: OnText<'_>) -> Result<ChatReply> {
    let mut reply = wire::Gathered::default();
    while let Some(line) = lines.next().await? {
        let event = match line.split_once(':') {
            Some(("data", event)) => event.trim().to_owned(),
            // llama.cpp used to tell of errors like this.
            Some(("error", event)) => return Err(wire::refused(event.as_bytes())),
            _ if line.starts_with('{') => match serde_json::from_str::<wire::Chunk>(&line) {
                Ok(_) => line,
                Err(_) => lines.rest(line).await?,
            },
            _ if line.starts_with('<') => return Err(lines.bad("it is a web page")),
            _ => continue,
        };
        if event == "[DONE]" {
            return Ok(reply.finish());
        }
        let chunk: wire::Chunk = serde_json::from_str(&event).map_err(|_| lines.bad(NO_JSON))?;
        if chunk.is_error() {
            return Err(wire::refused(event.as_bytes()));
        }
        if reply.add(chunk, on_text) == Room::Full {
            return Ok(reply.finish());
        }
    }
    // It ended properly, if without saying so.
    reply.cut().ok_or_else(|| lines.broke_off())
}
