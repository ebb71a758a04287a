//! Serves one session after another, for as long as the VM lives.

use std::convert::Infallible;
use std::time::Duration;

use fireclaw_protocol::hello::{GuestHello, greet_host};
use fireclaw_protocol::{Error, GENERATION, session};

use crate::boot::Booted;
use crate::exec::{Execs, MainProcess, Reaper};
use crate::identity::LiveSystem;

/// Opens the stream and serves the host. Returns only when that cannot work.
pub async fn serve(booted: &Booted) -> Result<Infallible, String> {
    tokio::task::LocalSet::new().run_until(sessions(booted)).await
}

async fn sessions(booted: &Booted) -> Result<Infallible, String> {
    let reaper = Reaper::start()?;
    let main = MainProcess::new(reaper.clone());
    let mut guest = LiveSystem { reaper: reaper.clone(), interface: Default::default() };
    let hello = GuestHello {
        generation: GENERATION,
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        kernel_us: microseconds(booted.kernel),
        init_us: microseconds(booted.init),
        prepared: None,
    };
    loop {
        let mut stream = booted.transport.open().await?;
        match greet_host(&mut stream, &hello, &mut guest).await {
            Ok(()) => {
                let execs = Execs::new(reaper.clone(), main.clone());
                if let Err(e) = session::serve(stream, |channel| execs.accept(channel)).await {
                    crate::say!("the session ended: {e}");
                }
            }
            // The host went away and may come back, or this VM was restored
            // from a snapshot and has another host now.
            Err(Error::Io(_) | Error::Closed) => {}
            Err(e) => return Err(format!("the handshake with the host failed: {e}")),
        }
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
