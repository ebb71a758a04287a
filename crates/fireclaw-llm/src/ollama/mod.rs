//! Servers that speak Ollama's own API, which tells more of its models than the other one
//! and sets the length of the context by request.

mod wire;

use futures_util::future::BoxFuture;
use serde_json::json;

use crate::error::escape;
use crate::http::{Http, Lines};
use crate::{Abilities, ChatModel, ChatReply, ChatRequest, Error, Key, ModelInfo, OnText, Result};

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
    pub fn new(url: &str, key: Option<Key>) -> Result<Self> {
        Ok(Self { http: Http::new(url, key.as_ref())? })
    }

    async fn known(&self) -> Result<Vec<ModelInfo>> {
        let tags: wire::Tags = self.http.get("/api/tags", &[]).await?;
        Ok(tags.models.into_iter().map(wire::Tag::info).collect())
    }

    /// A refusal because the model is missing says which ones there are.
    async fn explain(&self, model: &str, error: Error) -> Error {
        if !matches!(error, Error::Refused { status: 404, .. }) {
            return error;
        }
        let known = self.known().await.unwrap_or_default();
        let known = known.iter().map(|model| escape(&model.name)).collect();
        Error::ModelMissing { model: escape(model), known }
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

/// Reads JSON documents, one in each line, until one says that it is the last.
async fn read(mut lines: Lines, on_text: OnText<'_>) -> Result<ChatReply> {
    let mut reply = wire::Gathered::default();
    while let Some(line) = lines.next().await? {
        let chunk: wire::Chunk = serde_json::from_str(&line).map_err(|e| lines.bad(e))?;
        if let Some(error) = chunk.error {
            return Err(Error::Refused { status: 200, message: escape(&error) });
        }
        let done = chunk.done;
        reply.add(chunk, on_text).map_err(|problem| lines.bad(problem))?;
        if done {
            return Ok(reply.finish());
        }
    }
    Err(lines.broke_off())
}
