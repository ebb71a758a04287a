//! A file from a URL, gone on with where it ended.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RANGE;

use crate::partial::Partial;
use crate::{Error, Result};
use fireclaw_llm::{http_client, http_reason};

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
    let failed =
        |e: reqwest::Error| Error::Fetch { what: url.to_owned(), problem: http_reason(&e) };
    let client =
        http_client().connect_timeout(CONNECT).read_timeout(SILENCE).build().map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Gives these answers, one to each connection, and what was asked.
    async fn serve(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/model", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut asked = String::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let n = stream.read(&mut request).await.unwrap();
                asked.push_str(&String::from_utf8_lossy(&request[..n]));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (url, task)
    }

    const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
    const REST: &str = "HTTP/1.1 206 Partial Content\r\ncontent-length: 3\r\n\r\ndef";
    const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef";
    const LONG: &str = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nabcdefg";
    const NONE: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

    /// `printf abcdef | sha256sum`
    const DIGEST: &str = "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721";

    #[tokio::test]
    async fn what_broke_off_is_gone_on_with() {
        for answers in [&[CUT, REST], &[CUT, WHOLE]] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("partial");
            let (url, task) = serve(answers).await;
            let mut lengths = Vec::new();
            for fails in [true, false] {
                let mut partial = Partial::open(&path, 6, |length| length).unwrap();
                let done = download(&url, &mut partial, &mut |length| lengths.push(length)).await;
                assert_eq!(done.is_err(), fails, "{done:?}");
                if !fails {
                    partial.finish(&directory.path().join("model"), DIGEST).unwrap();
                }
            }
            assert!(task.await.unwrap().to_ascii_lowercase().contains("range: bytes=3-"));
            assert_eq!(lengths.last(), Some(&6));
        }
    }

    #[tokio::test]
    async fn what_is_missing_or_too_long_is_refused() {
        for answers in [&[NONE], &[LONG]] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("partial");
            let (url, _task) = serve(answers).await;
            let mut partial = Partial::open(&path, 6, |length| length).unwrap();
            let error = download(&url, &mut partial, &mut |_| {}).await.unwrap_err();
            assert!(matches!(error, Error::Fetch { .. }), "{error}");
        }
    }
}
