//! What passes on a wire.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

/// The part of a frame that is kept, in bytes: all of a probe's.
const KEPT: usize = 512;

/// All frames in a network namespace, from now on.
#[derive(Debug, Clone)]
pub struct Wire {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    socket: Socket,
    frames: Vec<Vec<u8>>,
}

#[allow(clippy::expect_used, clippy::new_without_default)]
impl Wire {
    /// Listens in the namespace of this thread.
    ///
    /// # Panics
    /// Without the right to.
    pub fn new() -> Self {
        // All protocols (packet(7)), in the order of the network.
        let all = Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("we are root here");
        socket.set_nonblocking(true).expect("a socket");
        let waiting = socket.try_clone().expect("a socket");
        let wire = Self { seen: Arc::new(Mutex::new(Seen { socket, frames: Vec::new() })) };
        let also = wire.clone();
        // What nobody asks for is not to be lost, as the kernel keeps some only.
        std::thread::spawn(move || {
            use rustix::event::{PollFd, PollFlags, poll};
            while poll(&mut [PollFd::new(&waiting, PollFlags::IN)], None).is_ok() {
                also.with(|_| ());
            }
        });
        wire
    }

    /// Whether a word came by in a frame.
    pub fn saw(&self, word: &str) -> bool {
        let word = word.as_bytes();
        self.any(|frame| frame.windows(word.len()).any(|part| part == word))
    }

    /// Whether a frame came by of which that holds.
    pub fn any(&self, holds: impl Fn(&[u8]) -> bool) -> bool {
        self.with(|frames| frames.iter().any(|frame| holds(frame)))
    }

    /// With everything that the kernel has seen by now.
    fn with<T>(&self, work: impl FnOnce(&[Vec<u8>]) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frame = vec![0; 1 << 16];
        while let Ok(length) = (&seen.socket).read(&mut frame) {
            let kept = frame.get(..length.min(KEPT)).unwrap_or_default().to_vec();
            seen.frames.push(kept);
        }
        work(&seen.frames)
    }
}
