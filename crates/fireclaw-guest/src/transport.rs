//! The byte stream to the host, however the VMM provides it.

mod port;

use std::fs;
use std::path::PathBuf;

use port::Port;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_vsock::{VsockAddr, VsockStream};

/// The name that the host gives the virtio-serial port.
const PORT_NAME: &str = "fireclaw.0";

/// The vsock port on which the host waits for this guest.
const VSOCK_PORT: u32 = 5005;

/// Which kind of stream this machine has.
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
    /// Reads `fireclaw.stream=` from the kernel's command line.
    pub fn from_cmdline(cmdline: &str) -> Result<Self, String> {
        let value =
            cmdline.split_whitespace().find_map(|word| word.strip_prefix("fireclaw.stream="));
        match value {
            Some("serial") => Ok(Self::Serial),
            Some("vsock") => Ok(Self::Vsock),
            Some(other) => Err(format!("unknown fireclaw.stream={other}")),
            None => Err("no fireclaw.stream= on the kernel's command line".into()),
        }
    }

    /// The word for it on the command line and in the module list.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Vsock => "vsock",
        }
    }

    /// Opens the stream; the host is listening already.
    pub async fn open(self) -> Result<Box<dyn Stream>, String> {
        match self {
            Self::Serial => open_port(),
            Self::Vsock => {
                let host = VsockAddr::new(tokio_vsock::VMADDR_CID_HOST, VSOCK_PORT);
                let stream = VsockStream::connect(host).await;
                Ok(Box::new(stream.map_err(|e| format!("cannot reach the host over vsock: {e}"))?))
            }
        }
    }
}

fn open_port() -> Result<Box<dyn Stream>, String> {
    let path = find_port()?;
    let port = Port::open(&path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    Ok(Box::new(port))
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
