//! What becomes of a Firecracker whose API misbehaves: an error, never a hang.

// Helpers of tests, which the tests' own exemption does not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use fireclaw_host::SocketDir;
use fireclaw_vm::Error;
use fireclaw_vm::firecracker::api::{Api, SOCKET};
use fireclaw_vm::firecracker::types::{
    Request, SnapshotCreateParams, SnapshotType, Vm, VmState, Vsock,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

fn vsock() -> Request {
    Request::Vsock(Vsock { guest_cid: 3, uds_path: "v.sock".into() })
}

fn pause() -> Request {
    Request::Vm(Vm { state: VmState::Paused })
}

/// An API that answers each request that it reads with `answer`.
struct Fake {
    dir: tempfile::TempDir,
    listener: UnixListener,
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        Self { dir, listener }
    }

    async fn connect(&self) -> (Api, UnixStream) {
        let home = SocketDir::open(self.dir.path()).unwrap();
        let api = Api::connect(&home).await.unwrap();
        (api, self.listener.accept().await.unwrap().0)
    }

    /// The outcome of `PUT /vsock` when `answer` is all that comes back.
    async fn outcome(answer: &'static [u8]) -> Error {
        let fake = Self::new();
        let (mut api, mut peer) = fake.connect().await;
        let server = async {
            read_request(&mut peer).await;
            peer.write_all(answer).await.unwrap();
            drop(peer);
        };
        let request = vsock();
        let (result, ()) = tokio::join!(api.send(&request), server);
        result.unwrap_err()
    }
}

/// Reads one request, whose body is a JSON object, and returns it.
async fn read_request(peer: &mut UnixStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"}") {
        assert_ne!(peer.read_buf(&mut read).await.unwrap(), 0, "a request");
    }
    String::from_utf8(read).unwrap()
}

fn said(error: &Error) -> String {
    assert!(matches!(error, Error::System { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_in_firecrackers_words_and_the_connection_goes_on() {
    let fake = Fake::new();
    let (mut api, mut peer) = fake.connect().await;
    let server = async {
        let request = read_request(&mut peer).await;
        assert!(request.starts_with("PUT /vsock HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with(r#"{"guest_cid":3,"uds_path":"v.sock"}"#), "{request}");
        let body = r#"{"fault_message":"not now \u001b[2J"}"#;
        let head = format!("HTTP/1.1 400 \r\nContent-Length: {}\r\n\r\n", body.len());
        peer.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let request = read_request(&mut peer).await;
        assert!(request.starts_with("PATCH /vm HTTP/1.1\r\n"), "{request}");
        peer.write_all(b"HTTP/1.1 204 \r\nServer: Firecracker API\r\n\r\n").await.unwrap();
    };
    let client = async {
        let error = api.send(&vsock()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert_eq!(error.to_string(), r"Firecracker refused PUT /vsock: not now \u{1b}[2J");
        api.send(&pause()).await.unwrap();
    };
    tokio::join!(server, client);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_words_still_tells_its_status() {
    let error = Fake::outcome(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nwhat").await;
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("500") && error.to_string().ends_with("what"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_is_an_error() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 204 \r\nServer: Fire",
        b"HTTP/1.1 400 \r\nContent-Length: 100\r\n\r\n{\"fault_mes",
    ] {
        let error = said(&Fake::outcome(answer).await);
        assert!(error.starts_with("Firecracker's API: PUT /vsock: "), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_http_is_an_error() {
    let error = said(&Fake::outcome(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await);
    assert!(error.starts_with("Firecracker's API: PUT /vsock: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_not_waited_for_longer_than_told() {
    let snapshot = Request::SnapshotCreate(SnapshotCreateParams {
        snapshot_type: SnapshotType::Full,
        snapshot_path: "state".into(),
        mem_file_path: "memory".into(),
    });
    for (request, limit) in [(vsock(), 10), (snapshot, 120)] {
        let fake = Fake::new();
        let (mut api, mut peer) = fake.connect().await;
        let start = Instant::now();
        let (result, _) = tokio::join!(api.send(&request), read_request(&mut peer));
        let error = said(&result.unwrap_err());
        assert!(error.ends_with(&format!("no answer within {limit} s")), "{error}");
        assert!(start.elapsed() < Duration::from_secs(limit + 1), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_answer_is_cut_off() {
    for (head, piece) in [
        ("HTTP/1.1 400 \r\nTransfer-Encoding: chunked\r\n\r\n", "400\r\n"),
        ("HTTP/1.1 400 \r\nContent-Length: 999999999\r\n\r\n", ""),
        ("HTTP/1.1 400 \r\n", "X: "),
    ] {
        let fake = Fake::new();
        let (mut api, mut peer) = fake.connect().await;
        let flood = async {
            read_request(&mut peer).await;
            peer.write_all(head.as_bytes()).await.unwrap();
            let block = format!("{piece}{}\r\n", "x".repeat(1024));
            let mut sent = 0_usize;
            // Ends only by the client's hanging up.
            while peer.write_all(block.as_bytes()).await.is_ok() {
                sent += block.len();
            }
            sent
        };
        let client = async {
            let error = api.send(&vsock()).await.unwrap_err();
            drop(api);
            said(&error)
        };
        let (error, sent) = tokio::join!(client, flood);
        assert!(error.starts_with("Firecracker's API: PUT /vsock: "), "{error}");
        assert!(sent < 1024 * 1024, "{sent} bytes were taken");
    }
}
