//! The host's multiplexer, with an open channel, against a hostile guest that knows how frames
//! are made.
#![no_main]

use fireclaw_protocol::message::Open;
use fireclaw_protocol::session::Session;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// Turns input into what a guest sends: four bytes say what a frame is, the rest is its data.
/// Random bytes are hardly ever a frame, and a session ends at the first that is none.
fn frames(mut input: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    while let [kind, flags, channel, length, rest @ ..] = input {
        input = rest;
        let size = usize::from(*length).min(input.len());
        // One in eight is no frame at all, or one of which the length lies.
        if kind & 0xe0 == 0xe0 {
            sent.extend_from_slice(&input[..size]);
            input = &input[size..];
            continue;
        }
        let kind = kind & 3;
        let is_data = kind == 0;
        let value = if is_data { size } else { usize::from(*length) << 12 };
        let value = u32::try_from(value).unwrap();
        // Version, type, flags, channel, length (yamux, "Framing").
        sent.extend_from_slice(&[0, kind, 0, flags & 0x0f]);
        sent.extend_from_slice(&u32::from(channel & 0x0f).to_be_bytes());
        sent.extend_from_slice(&value.to_be_bytes());
        if is_data {
            sent.extend_from_slice(&input[..size]);
            input = &input[size..];
        }
    }
    sent
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let sent = frames(data);
        let (host, mut guest) = duplex(1 << 20);
        let (session, driver) = Session::host(host);
        let driver = tokio::spawn(driver);
        let mut channel = session.open(&Open::Stdout { exec: 1 }).await.unwrap();
        guest.write_all(&sent).await.unwrap();
        guest.shutdown().await.unwrap();
        // The guest's end is closed, so both of these come to an end.
        let mut output = Vec::new();
        let _ = channel.read_to_end(&mut output).await;
        assert!(output.len() <= sent.len());
        drop((channel, session));
        let _ = driver.await.unwrap();
    });
});
