//! Registries that say what no registry should.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use fireclaw_registry::{Error, Reference, Registry, Store, Watch};

struct Silent;

impl Watch for Silent {
    fn progress(&self, _: u64, _: u64) {}
    fn waits(&self) {}
}

/// Answers requests on loopback as `answer` says for their paths: status, headers, body.
fn serve(answer: impl Fn(&str, u16) -> (u16, String, String) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let Some(Ok(first)) = lines.next() else { continue };
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap_or_default();
            let (status, headers, body) = answer(path, port);
            let length = body.len();
            let mut stream = stream;
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    port
}

async fn pull(port: u16) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(Store::new(directory.path()), "linux", "amd64");
    let reference = Reference::parse(&format!("127.0.0.1:{port}/app")).unwrap();
    registry.pull(&reference, &Silent).await.unwrap_err()
}

#[tokio::test]
async fn a_token_that_cannot_stand_in_a_header_is_an_error() {
    for token in ["a\\nb", "", "\\u00e9", "a b"] {
        let token = format!("{{\"token\":\"{token}\"}}");
        let port = serve(move |path, port| match path.starts_with("/token") {
            true => (200, String::new(), token.clone()),
            false => {
                let realm = format!("http://127.0.0.1:{port}/token");
                (401, format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), String::new())
            }
        });
        let error = pull(port).await;
        assert!(matches!(&error, Error::Registry { problem, .. } if problem.contains("token")));
    }
}

#[tokio::test]
async fn words_of_a_registry_are_harmless() {
    let port = serve(|path, _| match path {
        "/v2/" => (200, String::new(), "{}".into()),
        _ => (500, String::new(), "\x1b[2J\u{9b}31m".into()),
    });
    let text = pull(port).await.to_string();
    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
}

#[tokio::test]
async fn a_manifest_that_is_no_images_is_refused() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let manifest = |config: &str, size: &str, layers: usize| {
        let layer = format!(
            "{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"{digest}\",\"size\":1}}"
        );
        let layers = vec![layer; layers].join(",");
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"config\":{{\"mediaType\":\"{config}\",\"digest\":\"{digest}\",\"size\":{size}}},\
             \"layers\":[{layers}]}}"
        )
    };
    let config = "application/vnd.oci.image.config.v1+json";
    for manifest in [
        manifest("application/vnd.cncf.helm.config.v1+json", "1", 1),
        manifest(config, "1", 0),
        manifest(config, "1", 513),
        manifest(config, "99999999999", 1),
        manifest(config, "-1", 1),
    ] {
        let port = serve(move |path, _| match path {
            "/v2/" => (200, String::new(), "{}".into()),
            _ => {
                let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
                (200, kind.into(), manifest.clone())
            }
        });
        let error = pull(port).await;
        assert!(matches!(error, Error::NotAnImage { .. }), "{error}");
    }
}
