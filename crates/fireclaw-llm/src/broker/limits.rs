//! What a broker lets through.

use std::time::Duration;

use crate::{ChatRequest, Error, Result};

/// Bounds of what agents may ask. A guest decides what is asked, so each has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests that the server works on at once.
    pub slots: usize,
    /// Requests of one agent that may wait.
    pub max_queue_per_agent: usize,
    /// Tokens of one reply.
    pub max_tokens_per_reply: u32,
    /// Tokens of a context, where a request sets it: it costs memory on the server.
    pub max_context_tokens: u32,
    /// Seconds from the start to the end of a request, with all retries.
    pub max_seconds_per_request: u64,
    /// Bytes of a request's messages and tools together.
    pub max_request_bytes: usize,
    /// How often a request is tried again that the server could not take.
    pub max_retries: u32,
    /// The wait before the first retry; it doubles with each.
    pub first_retry: Duration,
}

impl Default for Limits {
    /// For one server with one model on one host.
    fn default() -> Self {
        Self {
            slots: 1,
            max_queue_per_agent: 8,
            max_tokens_per_reply: 1024,
            max_context_tokens: 32_768,
            max_seconds_per_request: 300,
            max_request_bytes: 1024 * 1024,
            max_retries: 4,
            first_retry: Duration::from_millis(500),
        }
    }
}

impl Limits {
    /// Lowers what a request asks for; refuses it if it is too large.
    pub fn apply(&self, request: &mut ChatRequest) -> Result<()> {
        let bytes = size(request);
        if bytes > self.max_request_bytes {
            return Err(Error::TooLarge { bytes, limit: self.max_request_bytes });
        }
        super::schemas::bound(request)?;
        let most = self.max_tokens_per_reply;
        request.max_tokens = Some(request.max_tokens.map_or(most, |asked| asked.min(most)));
        request.num_ctx = request.num_ctx.map(|asked| asked.min(self.max_context_tokens));
        Ok(())
    }

    /// How long to wait before a retry, the first being 0: between half and one and a half
    /// times the even wait, so that several that failed together do not return together.
    pub fn wait(&self, retry: u32) -> Duration {
        self.first_retry.saturating_mul(1 << retry.min(6)).mul_f64(0.5 + fastrand::f64())
    }
}

fn size(request: &ChatRequest) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, request) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}
