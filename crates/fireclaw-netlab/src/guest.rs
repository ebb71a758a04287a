//! A guest without a VM: a namespace whose network interface is the other end of a tap.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Output};

use fireclaw_net::{Interface, bare_tap};
use rustix::event::{PollFd, PollFlags, poll};

use crate::Namespace;
use crate::namespace::ip;

/// A guest at a tap.
#[derive(Debug)]
pub struct TapGuest {
    /// Where it is.
    pub namespace: Namespace,
    /// Closed, it ends what copies frames.
    stop: Option<OwnedFd>,
    copying: Option<std::thread::JoinHandle<()>>,
}

#[allow(clippy::expect_used)]
impl TapGuest {
    /// Connects a guest to a tap, and configures it as its interface says.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn attachment(tap: OwnedFd, interface: &Interface) -> Self {
        let namespace = Namespace::new();
        let eth0 = namespace.run(|| {
            let eth0 = bare_tap("eth0").expect("a tap can be made");
            ip(&format!("link set eth0 address {} up", interface.mac));
            ip(&format!("addr add {}/{} dev eth0", interface.address, interface.prefix));
            ip(&format!("route add default via {}", interface.gateway));
            eth0
        });
        let (stopped, stop) = rustix::pipe::pipe().expect("a pipe can be made");
        let copying = std::thread::spawn(move || copy(&tap, &eth0, &stopped));
        Self { namespace, stop: Some(stop), copying: Some(copying) }
    }

    /// Runs a program in the guest.
    ///
    /// # Panics
    /// If it does not start.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Output {
        self.namespace.run(|| {
            Command::new(program).args(arguments).output().expect("the program is installed")
        })
    }
}

impl Drop for TapGuest {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(copying) = self.copying.take() {
            let _ = copying.join();
        }
    }
}

/// Copies frames, with the headers that both taps have before them, until told to stop.
fn copy(tap: &OwnedFd, eth0: &OwnedFd, stopped: &OwnedFd) {
    loop {
        let mut polled = [tap, eth0, stopped].map(|fd| PollFd::new(fd, PollFlags::IN));
        if poll(&mut polled, None).is_err() {
            continue;
        }
        let [a, b, stop] = polled.map(|fd| !fd.revents().is_empty());
        let ended = (a && !frame(tap.as_fd(), eth0.as_fd()))
            || (b && !frame(eth0.as_fd(), tap.as_fd()))
            || stop;
        if ended {
            return;
        }
    }
}

fn frame(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = vec![0; 70_000];
    match rustix::io::read(from, &mut buffer[..]) {
        // A frame that the other side does not take is lost, as on a wire.
        Ok(length) => {
            let _ = rustix::io::write(to, buffer.get(..length).unwrap_or_default());
            true
        }
        // The tap is gone.
        Err(_) => false,
    }
}
