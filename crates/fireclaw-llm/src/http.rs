//! HTTP towards a model server, which is not trusted: what it sends has a size that it may
//! have, and its words are escaped.

use std::error::Error as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use fireclaw_host::{PathError, Secret};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::escape;
use crate::{Error, Result, ServerConfig};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take that needs no model.
const QUICK: Duration = Duration::from_secs(10);

/// The most bytes of an answer that needs no model. Ollama's about a model has the
/// licence in it; a server with a thousand models lists them in less.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// The most bytes of a file with certificates: a system's whole store has less.
const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// The longest time that a server may put us off before it is asked again: it is not
/// trusted, and the agent's person waits.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

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
    pub fn new(url: &str, key: Option<&Secret>) -> Result<Self> {
        Self::trusting(url, key, None)
    }

    /// The server of a configuration, at this URL.
    pub fn of(config: &ServerConfig, url: &str) -> Result<Self> {
        Self::trusting(url, config.key.as_ref(), config.ca_file.as_deref())
    }

    /// The same, trusting the certificates of a file (PEM) beside the system's.
    pub fn trusting(url: &str, key: Option<&Secret>, ca_file: Option<&Path>) -> Result<Self> {
        let url = normal(url)?;
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
        let mut client = builder().redirect(Policy::none()).default_headers(headers);
        if is_loopback(&url) {
            // A proxy would look for it on its own host, and see the key.
            client = client.no_proxy();
        }
        if let Some(file) = ca_file {
            client = client.tls_certs_merge(certificates(file)?);
        }
        let client = client.build().map_err(|e| Error::Client { reason: reason(&e) })?;
        Ok(Self { client, url })
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
        serde_json::from_slice(&body).map_err(|_| bad(&self.url, NO_JSON))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|e| failed(&self.url, &e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = wait.and_then(|seconds| seconds.trim().parse().ok());
        let retry_after = retry_after.map(|s| Duration::from_secs(s).min(MAX_RETRY_AFTER));
        let body = self.body(response, MAX_REFUSAL).await.unwrap_or_default();
        let message = match words(&body) {
            said if said.is_empty() => status.canonical_reason().unwrap_or("no reason").to_owned(),
            said => said,
        };
        Err(Error::Refused { status: status.as_u16(), message, retry_after })
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

/// What is said of an answer that is not JSON, whatever the parser says.
pub const NO_JSON: &str = "it is not the JSON that was asked for";

/// Whether a server is on this host.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let mut pem = Vec::new();
    let file = File::open(path).map_err(PathError::at("open", path))?;
    file.take(MAX_CERTIFICATES).read_to_end(&mut pem).map_err(PathError::at("read", path))?;
    let wrong = |problem: &str| Error::Client {
        reason: format!("{} {problem}", escape(&path.to_string_lossy())),
    };
    let all = reqwest::Certificate::from_pem_bundle(&pem);
    let all = all.map_err(|_| wrong("has certificates that cannot be read"))?;
    if all.is_empty() { Err(wrong("has no certificate (PEM)")) } else { Ok(all) }
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

    /// All that is left, for an answer that is one document over many lines.
    pub async fn rest(&mut self, mut document: String) -> Result<String> {
        while let Some(line) = self.next().await? {
            document.push('\n');
            document.push_str(&line);
            if document.len() > MAX_BODY {
                return Err(self.bad(format!("it is longer than {MAX_BODY} bytes")));
            }
        }
        Ok(document)
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

/// The text of a field that should have one: absent, null, a text, or a list of parts.
pub fn text_of(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
            .collect(),
        _ => String::new(),
    }
}

/// As much of a text as still fits, whole characters.
pub fn fitting(text: &str, room: usize) -> &str {
    &text[..text.floor_char_boundary(room)]
}

/// A refusal's own words: `{"error": {"message": …}}` of OpenAI, `{"error": …}` of Ollama,
/// or whatever it is.
pub fn words(body: &[u8]) -> String {
    let value = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let error = value.get("error").unwrap_or(&value);
    let said = error.get("message").unwrap_or(error).as_str();
    if said.is_none() && body.trim_ascii_start().starts_with(b"<") {
        return "it answered with a web page".into();
    }
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
    fn a_server_on_this_machine_is_known_in_every_spelling() {
        for given in ["localhost", "LOCALHOST.:1", "127.0.0.1:11434", "127.9.9.9", "[::1]:80"] {
            assert!(is_loopback(&normal(given).unwrap()), "{given}");
        }
        for given in ["localhost.example.org", "10.0.0.1", "127.0.0.1.example.org", "[::2]"] {
            assert!(!is_loopback(&normal(given).unwrap()), "{given}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        let error = Http::trusting("https://x", None, Some(&path)).unwrap_err();
        assert!(error.to_string().contains("ca.pem has no certificate"), "{error}");
        let error = Http::trusting("https://x", None, Some(Path::new("/no/ca"))).unwrap_err();
        assert!(matches!(error, Error::File(_)), "{error}");
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
        assert_eq!(words(b"Bad\x07 Gateway"), "Bad\\u{7} Gateway");
        assert_eq!(words(b"\n<h1>Bad Gateway"), "it answered with a web page");
        assert_eq!(words(b""), "");
    }

    #[test]
    fn work_per_byte_does_not_grow_with_the_text() {
        let work = |text: &str| drop(words(text.as_bytes()));
        fireclaw_testkit::cost::assert_linear("words", &work);
    }
}
