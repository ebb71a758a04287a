//! Servers that speak Ollama's own API, which tells more of its models than the other one
//! and sets the length of the context by request.

mod wire;

use fireclaw_host::Secret;
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::chat::{MAX_MODELS, Room};
use crate::error::escape;
use crate::http::{Http, Lines, NO_JSON, text_of};
use crate::{
    Abilities, ChatModel, ChatReply, ChatRequest, Error, ModelInfo, OnText, Result, ServerConfig,
};

/// An Ollama server.
#[derive(Debug)]
pub struct Ollama {
    http: Http,
}

impl Ollama {
    /// The server at `url`.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::Client`].
    pub fn new(url: &str, key: Option<Secret>) -> Result<Self> {
        Ok(Self { http: Http::new(url, key.as_ref())? })
    }

    pub(crate) fn at(config: &ServerConfig) -> Result<Self> {
        Ok(Self { http: Http::of(config, &config.url)? })
    }

    async fn known(&self) -> Result<Vec<ModelInfo>> {
        let tags: wire::Tags = self.http.get("/api/tags", &[]).await?;
        Ok(tags.models.into_iter().take(MAX_MODELS).map(wire::Tag::info).collect())
    }

    /// A refusal because the model is missing says which ones there are. The server's own
    /// list decides: 404 may also be a wrong path, or a proxy's.
    async fn explain(&self, model: &str, error: Error) -> Error {
        if !matches!(error, Error::Refused { status: 404, .. }) {
            return error;
        }
        match self.known().await {
            Ok(known) if !known.is_empty() && !has(&known, model) => Error::ModelMissing {
                model: escape(model),
                known: known.into_iter().map(|model| model.name).collect(),
            },
            _ => error,
        }
    }

    async fn ask(&self, request: &ChatRequest, on_text: OnText<'_>) -> Result<ChatReply> {
        match self.http.stream("/api/chat", &wire::Request::new(request)).await {
            Ok(lines) => read(lines, on_text).await,
            Err(error) => Err(self.explain(&request.model, error).await),
        }
    }
}

impl ChatModel for Ollama {
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>>> {
        Box::pin(self.known())
    }

    fn abilities<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<Abilities>> {
        Box::pin(async move {
            match self.http.post::<wire::Shown>("/api/show", &json!({"model": model})).await {
                Ok(shown) => Ok(shown.abilities()),
                Err(error) => Err(self.explain(model, error).await),
            }
        })
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        on_text: OnText<'a>,
    ) -> BoxFuture<'a, Result<ChatReply>> {
        Box::pin(self.ask(request, on_text))
    }
}

/// Whether a list has a model; `:latest` may be left out.
fn has(known: &[ModelInfo], model: &str) -> bool {
    let bare = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
    known.iter().any(|one| bare(&one.name) == bare(model))
}

/// Reads JSON documents, one in each line, until one says that it is the last. A document
/// over many lines is the only one.
async fn read(mut lines: Lines, on_text: OnText<'_>) -> Result<ChatReply> {
    let mut reply = wire::Gathered::default();
    let mut first = true;
    while let Some(line) = lines.next().await? {
        let chunk = match serde_json::from_str::<wire::Chunk>(&line) {
            Ok(chunk) => chunk,
            Err(_) if first && line.starts_with('{') => {
                let document = lines.rest(line).await?;
                serde_json::from_str(&document).map_err(|_| lines.bad(NO_JSON))?
            }
            Err(_) => return Err(lines.bad(NO_JSON)),
        };
        first = false;
        if let Some(error) = &chunk.error {
            return Err(Error::refused(200, escape(&text_of(error))));
        }
        let done = chunk.done();
        if reply.add(chunk, on_text) == Room::Full || done {
            if reply.is_loading() {
                return Err(Error::refused(503, "it still loads the model".into()));
            }
            return Ok(reply.finish());
        }
    }
    // It ended properly, if without saying so.
    reply.cut().ok_or_else(|| lines.broke_off())
}
