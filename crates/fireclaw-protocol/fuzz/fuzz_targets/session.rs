//! The host's multiplexer, with an open channel, against a hostile guest.
#![no_main]

use fireclaw_protocol::message::Open;
use fireclaw_protocol::session::Session;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (host, mut guest) = duplex(1 << 20);
        let (session, driver) = Session::host(host);
        let driver = tokio::spawn(driver);
        let mut channel = session.open(&Open::Stdout { exec: 1 }).await.unwrap();
        guest.write_all(data).await.unwrap();
        guest.shutdown().await.unwrap();
        // The guest's end is closed, so both of these come to an end.
        let mut output = Vec::new();
        let _ = channel.read_to_end(&mut output).await;
        assert!(output.len() <= data.len());
        drop((channel, session));
        let _ = driver.await.unwrap();
    });
});
