//! Servers that speak OpenAI's API: llama.cpp, vLLM and others.

mod wire;

use futures_util::future::BoxFuture;

use crate::error::escape;
use crate::http::{Http, Lines};
use crate::{Abilities, ChatModel, ChatReply, ChatRequest, Error, Key, ModelInfo, OnText, Result};

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
    pub fn new(url: &str, key: Option<Key>) -> Result<Self> {
        let url = url.trim().trim_end_matches('/');
        let root = url.strip_suffix("/v1").unwrap_or(url);
        Ok(Self { http: Http::new(root, key.as_ref())? })
    }

    async fn known(&self) -> Result<Vec<wire::Model>> {
        Ok(self.http.get::<wire::Models>("/v1/models", &[]).await?.data)
    }

    async fn missing(&self, model: &str) -> Error {
        let known = self.known().await.unwrap_or_default();
        Error::ModelMissing {
            model: escape(model),
            known: known.iter().map(|model| escape(&model.id)).collect(),
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
            return Err(self.missing(model).await);
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
            Err(Error::Refused { status: 404, .. }) => Err(self.missing(&request.model).await),
            Err(error) => Err(error),
        }
    }
}

impl ChatModel for OpenAi {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>> {
        Box::pin(async {
            Ok(self.known().await?.into_iter().flat_map(wire::Model::infos).collect())
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

/// Reads server-sent events, each one line of JSON after `data:`.
async fn read(mut lines: Lines, on_text: OnText<'_>) -> Result<ChatReply> {
    let mut reply = wire::Gathered::default();
    while let Some(line) = lines.next().await? {
        let event = match line.split_once(':') {
            Some(("data", event)) => event.trim(),
            // llama.cpp used to tell of errors like this.
            Some(("error", event)) => return Err(wire::refused(event.as_bytes())),
            // A server that does not stream answers with one line.
            _ if line.starts_with('{') => line.as_str(),
            _ => continue,
        };
        if event == "[DONE]" {
            return Ok(reply.finish());
        }
        let chunk: wire::Chunk = serde_json::from_str(event).map_err(|e| lines.bad(e))?;
        if chunk.error.is_some() {
            return Err(wire::refused(event.as_bytes()));
        }
        reply.add(chunk, on_text).map_err(|problem| lines.bad(problem))?;
    }
    if reply.finished { Ok(reply.finish()) } else { Err(lines.broke_off()) }
}
