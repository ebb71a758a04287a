//! The guest's answer to a connection, and the bytes that follow it.
#![no_main]

use fireclaw_protocol::frame;
use fireclaw_protocol::message::Connected;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut from = data;
        let answer: fireclaw_protocol::Result<Option<Connected>> =
            frame::read(&mut from, frame::MAX_FROM_GUEST).await;
        if let Ok(Some(answer)) = answer {
            // What was accepted survives another trip over the wire.
            let wire = frame::encode(&answer);
            assert_eq!(frame::decode::<Connected>(&wire[4..]).unwrap(), answer);
            assert!(from.len() < data.len());
        }
    });
});
