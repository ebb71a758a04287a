//! Everything the host decodes on an attached channel, one message after another.
#![no_main]

use fireclaw_protocol::frame;
use fireclaw_protocol::message::MainEvent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut from = data;
        while let Ok(Some(event)) = frame::read(&mut from, frame::MAX_FROM_GUEST).await {
            // What was accepted survives another trip over the wire.
            let event: MainEvent = event;
            let wire = frame::encode(&event);
            assert_eq!(frame::decode::<MainEvent>(&wire[4..]).unwrap(), event);
        }
    });
});
