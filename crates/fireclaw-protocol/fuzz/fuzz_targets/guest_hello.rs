//! The host's half of the handshake against whatever a guest sends.
#![no_main]

use fireclaw_protocol::hello::{Identity, greet_guest};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncWriteExt, duplex};

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut host, mut guest) = duplex(1 << 20);
        guest.write_all(data).await.unwrap();
        guest.shutdown().await.unwrap();
        let identity = || Identity {
            wall_clock_ns: 0,
            entropy: vec![0; 64].into(),
            hostname: "fuzz".into(),
            machine_id: [0; 16].into(),
            interface: None,
        };
        if let Ok(hello) = greet_guest(&mut host, identity, || 1).await {
            assert!(hello.version.len() <= 256 && hello.kernel.len() <= 256);
        }
    });
});
