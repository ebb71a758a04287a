//! The byte stream to the host, however the VMM provides it.

mod descriptor;

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use descriptor::Descriptor;
use fireclaw_protocol::boot::{PORT_NAME, SERIAL, STREAM, VSOCK, VSOCK_PORT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_vsock::{VsockAddr, VsockStream};

/// How long to wait before a host that was not there is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Which kind of stream this VM has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtio-serial port (QEMU).
    Serial,
    /// A vsock connection to the host (Firecracker).
    Vsock,
}

/// Anything that carries bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Kind {
    /// Reads [`STREAM`] from the kernel's command line.
    pub fn from_cmdline(cmdline: &str) -> Result<Self, String> {
        let value = cmdline.split_whitespace().find_map(|word| word.strip_prefix(STREAM));
        match value {
            Some(SERIAL) => Ok(Self::Serial),
            Some(VSOCK) => Ok(Self::Vsock),
            Some(other) => Err(format!("unknown {STREAM}{other}")),
            None => Err(format!("no {STREAM} on the kernel's command line")),
        }
    }

    /// The word for it on the command line and in the module list.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => SERIAL,
            Self::Vsock => VSOCK,
        }
    }

    /// Opens the stream, waiting for a host for as long as there is none.
    pub async fn open(self) -> Result<Box<dyn Stream>, String> {
        let file = match self {
            Self::Serial => open_port().await?,
            Self::Vsock => connect().await,
        };
        let stream = Descriptor::new(file).map_err(|e| format!("the stream to the host: {e}"))?;
        Ok(Box::new(stream))
    }
}

/// Opens the port once a host is there.
///
/// A port opens whether or not there is one. Without one it is hung up, which
/// tokio never forgets of a descriptor, even when a host comes later.
async fn open_port() -> Result<File, String> {
    let path = find_port()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    loop {
        match options.open(&path) {
            Ok(port) if has_host(&port) => return Ok(port),
            // Only one opener at a time is allowed by the kernel, and the last
            // one may still be going.
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ResourceBusy => {}
            Err(e) => return Err(format!("cannot open {}: {e}", path.display())),
        }
        sleep(PAUSE).await;
    }
}

fn has_host(port: &File) -> bool {
    let mut state = [PollFd::new(port, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut state, Some(&now)).is_ok() && !state[0].revents().contains(PollFlags::HUP)
}

/// Connects to the host, tried again until it listens: the VM lives no
/// longer than its host wants.
async fn connect() -> File {
    let mut said = None;
    loop {
        let host = VsockAddr::new(tokio_vsock::VMADDR_CID_HOST, VSOCK_PORT);
        match VsockStream::connect(host).await {
            Ok(stream) => return File::from(OwnedFd::from(stream)),
            Err(e) => {
                // Once, or it would fill the console.
                if said.replace(e.kind()) != Some(e.kind()) {
                    crate::say!("cannot reach the host over vsock: {e}");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn find_port() -> Result<PathBuf, String> {
    for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
        {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(format!("there is no virtio-serial port named {PORT_NAME}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_stream() {
        assert_eq!(Kind::from_cmdline("quiet fireclaw.stream=serial x"), Ok(Kind::Serial));
        assert_eq!(Kind::from_cmdline("fireclaw.stream=vsock\n"), Ok(Kind::Vsock));
        assert!(Kind::from_cmdline("fireclaw.stream=tcp").is_err());
        assert!(Kind::from_cmdline("quiet").is_err());
    }
}
