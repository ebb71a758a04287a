//! Network namespaces, entered by threads.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

#[allow(clippy::expect_used, clippy::new_without_default)]
impl Namespace {
    /// A new one, with its loopback up.
    ///
    /// # Panics
    /// Without the right to make one.
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare();
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().expect("a namespace can be made").expect("it is in /proc");
        Self { file }
    }

    /// Does something in it: sockets opened and programs started there belong to it.
    ///
    /// # Panics
    /// If `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves this thread into it.
    ///
    /// # Panics
    /// Without the right to.
    pub fn enter(&self) {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.file.as_fd(), kind).expect("it can be entered");
    }

    /// Its name for `ip link set … netns`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

#[allow(unsafe_code, clippy::expect_used)]
fn unshare() {
    // SAFETY: a network namespace has nothing to do with memory or descriptors.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("we are root here");
}

/// Runs `ip` with words.
///
/// # Panics
/// If it fails.
pub fn ip(words: &str) -> String {
    crate::run("ip", &words.split_whitespace().collect::<Vec<_>>())
}
