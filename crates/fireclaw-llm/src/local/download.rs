//! A file from a URL, gone on with where it ended.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RANGE;

use super::partial::Partial;
use crate::http::{builder, reason};
use crate::{Error, Result};

/// How long a place may take to answer: there is another one.
const CONNECT: Duration = Duration::from_secs(3);

/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(20);

/// Appends what is missing of the file at `url`. `heard` is told the length.
pub async fn download(
    url: &str,
    partial: &mut Partial,
    heard: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    let failed = |e: reqwest::Error| Error::Fetch { what: url.to_owned(), problem: reason(&e) };
    let client =
        builder().connect_timeout(CONNECT).read_timeout(SILENCE).build().map_err(failed)?;
    let mut request = client.get(url);
    if partial.length() > 0 {
        request = request.header(RANGE, format!("bytes={}-", partial.length()));
    }
    let mut response = request.send().await.and_then(|r| r.error_for_status()).map_err(failed)?;
    if response.status() != StatusCode::PARTIAL_CONTENT {
        partial.clear()?;
    }
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        partial.append(&chunk)?;
        heard(partial.length());
    }
    Ok(())
}
