//! HTTP towards a model server, which is not trusted: what it sends has a size that it may
//! have, and its words are escaped.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::escape;
use crate::{Error, Key, Result};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take that needs no model.
const QUICK: Duration = Duration::from_secs(10);

/// The most bytes of an answer that needs no model. Ollama's about a model has the
/// licence in it; a server with a thousand models lists them in less.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// The most bytes of a refusal that are read.
const MAX_REFUSAL: usize = 64 * 1024;

/// The most bytes of one line of a stream. A tool call comes in one line from Ollama.
const MAX_LINE: usize = 512 * 1024;

/// The most bytes of a stream. A token takes about 300 bytes, so that is 50,000 tokens.
const MAX_STREAM: usize = 16 * 1024 * 1024;

/// The most bytes of a reply, and of the arguments of its calls.
pub const MAX_REPLY: usize = 256 * 1024;

/// One server.
#[derive(Debug)]
pub struct Http {
    client: Client,
    url: String,
}

impl Http {
    /// A client for the server at `url`, whose scheme may be left out.
    pub fn new(url: &str, key: Option<&Key>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", key.reveal())).map_err(|_| {
                    Error::Client { reason: "the key has characters that cannot be sent".into() }
                })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // A redirect would take the key and the conversation to somebody else.
        let client = builder().redirect(Policy::none()).default_headers(headers);
        let client = client.build().map_err(|e| Error::Client { reason: reason(&e) })?;
        Ok(Self { client, url: normal(url)? })
    }

    /// The server's address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let mut url = Url::parse(&format!("{}{path}", self.url))
            .map_err(|e| Error::BadUrl { url: self.url.clone(), problem: e.to_string() })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.document(self.client.request(Method::GET, url)).await
    }

    /// Sends a JSON document and asks for one.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.document(self.client.post(format!("{}{path}", self.url)).json(body)).await
    }

    /// Sends a JSON document and asks for a stream of lines.
    pub async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Lines> {
        let request = self.client.post(format!("{}{path}", self.url)).json(body);
        let response = self.send(request).await?;
        Ok(Lines { response, url: self.url.clone(), buffer: Vec::new(), start: 0, received: 0 })
    }

    async fn document<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request.timeout(QUICK)).await?;
        let body = self.body(response, MAX_BODY).await?;
        serde_json::from_slice(&body).map_err(|e| bad(&self.url, e))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| failed(&self.url, &e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response, MAX_REFUSAL).await.unwrap_or_default();
        let message = match words(&body) {
            said if said.is_empty() => status.canonical_reason().unwrap_or("no reason").to_owned(),
            said => said,
        };
        Err(Error::Refused { status: status.as_u16(), message })
    }

    async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(&self.url, &e))? {
            if body.len() + chunk.len() > limit {
                return Err(bad(&self.url, format!("it is longer than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// The lines of an answer that comes bit by bit.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    url: String,
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins.
    start: usize,
    received: usize,
}

impl Lines {
    /// The next line that is not empty, without its end.
    pub async fn next(&mut self) -> Result<Option<String>> {
        let mut searched = self.start;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.take(searched + length);
                self.start = (searched + length + 1).min(self.buffer.len());
                searched = self.start;
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(bad(&self.url, format!("a line is longer than {MAX_LINE} bytes")));
            }
            let Some(chunk) = self.response.chunk().await.map_err(|e| failed(&self.url, &e))?
            else {
                let rest = self.take(self.buffer.len());
                self.start = self.buffer.len();
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            };
            self.received += chunk.len();
            if self.received > MAX_STREAM {
                return Err(bad(&self.url, format!("it is longer than {MAX_STREAM} bytes")));
            }
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// What is said of an answer that makes no sense.
    pub fn bad(&self, problem: impl ToString) -> Error {
        bad(&self.url, problem)
    }

    /// What is said of an answer that ended too early.
    pub fn broke_off(&self) -> Error {
        Error::BrokeOff { url: self.url.clone(), reason: "the answer has no end".into() }
    }

    fn take(&self, end: usize) -> String {
        String::from_utf8_lossy(&self.buffer[self.start..end]).trim().to_owned()
    }
}

/// A client as both servers and downloads need it.
pub fn builder() -> reqwest::ClientBuilder {
    // ring, for the whole process, unless somebody chose before: it then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(CONNECT)
        .user_agent(concat!("fireclaw/", env!("CARGO_PKG_VERSION")))
}

/// A server's URL as requests begin with it.
fn normal(given: &str) -> Result<String> {
    let trimmed = given.trim();
    let whole =
        if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
    let wrong = |problem: String| Error::BadUrl { url: escape(given), problem };
    let url = Url::parse(&whole).map_err(|e| wrong(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it begins with neither http:// nor https://".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // It would be shown in errors.
        let problem = "it has a name or password in it; a key is set apart from it".into();
        return Err(Error::BadUrl { url: url.host_str().unwrap_or_default().to_owned(), problem });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or fragment".into()));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn bad(url: &str, problem: impl ToString) -> Error {
    Error::BadReply { url: url.to_owned(), problem: escape(&problem.to_string()) }
}

fn failed(url: &str, error: &reqwest::Error) -> Error {
    let url = url.to_owned();
    if error.is_connect() {
        Error::Down { url, reason: reason(error) }
    } else if error.is_timeout() {
        Error::TimedOut { seconds: QUICK.as_secs() }
    } else if error.is_builder() {
        Error::BadReply { url, problem: reason(error) }
    } else {
        Error::BrokeOff { url, reason: reason(error) }
    }
}

/// The innermost cause: the outer ones say "error sending request".
pub fn reason(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut said = None;
    while let Some(inner) = cause {
        said = Some(inner.to_string());
        cause = inner.source();
    }
    escape(&said.unwrap_or_else(|| error.to_string()))
}

/// A refusal's own words: `{"error": {"message": …}}` of OpenAI, `{"error": …}` of Ollama,
/// or whatever it is.
pub fn words(body: &[u8]) -> String {
    let value = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let error = value.get("error").unwrap_or(&value);
    let said = error.get("message").unwrap_or(error).as_str();
    escape(said.unwrap_or(&String::from_utf8_lossy(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out_and_a_slash_may_be_too_much() {
        assert_eq!(normal("localhost:11434/").unwrap(), "http://localhost:11434");
        assert_eq!(normal("https://x.org/api/v1").unwrap(), "https://x.org/api/v1");
    }

    #[test]
    fn what_is_no_server_is_named() {
        for given in ["ftp://x", "http://", "http://x?a=b", "http://me:secret@x", ""] {
            let error = normal(given).unwrap_err();
            assert!(matches!(error, Error::BadUrl { .. }), "{given}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn refusals_of_all_servers_are_read() {
        let openai = br#"{"error":{"code":503,"message":"Loading model","type":"x"}}"#;
        assert_eq!(words(openai), "Loading model");
        assert_eq!(words(br#"{"error":"model 'x' not found"}"#), "model 'x' not found");
        assert_eq!(words(b"<h1>Bad\x07 Gateway"), "<h1>Bad\\u{7} Gateway");
        assert_eq!(words(b""), "");
    }
}
