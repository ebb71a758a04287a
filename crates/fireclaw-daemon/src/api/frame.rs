//! What goes over a connection that was upgraded to a command's streams:
//! `docs/reference/api.md`.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a connection is upgraded to (RFC 9110, 7.8).
pub(super) const UPGRADE: &str = "fireclaw-exec";

/// The longest payload, in bytes.
pub const MOST: usize = 64 * 1024;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// With this status.
    Exited(u8),
    /// By this signal.
    Signal(u8),
    /// Its time ran out.
    TimedOut,
    /// With the status that a shell would give, after the VM's memory had run out.
    OutOfMemory(u8),
    /// It never ran.
    NotStarted {
        /// The status that a shell would give.
        status: u8,
        /// Why, in the guest's words.
        message: String,
    },
    /// With its VM, or the stream to it.
    Lost(String),
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the command's standard input; empty at its end. Only after
    /// [`Frame::Wanted`], one for each.
    Input(Vec<u8>),
    /// From its standard output.
    Output(Vec<u8>),
    /// From its standard error.
    Error(Vec<u8>),
    /// The command takes input.
    Wanted,
    /// Linux's number of a signal to the command.
    Signal(u8),
    /// The command's terminal has this size now.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in each.
        columns: u16,
    },
    /// The last frame.
    Ended(Ended),
}

impl Frame {
    /// The next frame; none if the other side has gone. Not cancel-safe.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is none, and whatever reading can say.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let kind = match from.read_u8().await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            kind => kind?,
        };
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let length = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
        if length > MOST {
            return Err(wrong());
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        Ok(Some(match (kind, &payload[..]) {
            (0, _) => Self::Input(payload),
            (1, _) => Self::Output(payload),
            (2, _) => Self::Error(payload),
            (3, []) => Self::Wanted,
            (4, [signal]) => Self::Signal(*signal),
            (6, &[a, b, c, d]) => Self::Resize {
                rows: u16::from_be_bytes([a, b]),
                columns: u16::from_be_bytes([c, d]),
            },
            (5, ended) => Self::Ended(serde_json::from_slice(ended).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        }))
    }

    /// Writes it and flushes.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a payload that is too long, and whatever
    /// writing can say.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (ended, size);
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Input(bytes) => (0, bytes),
            Self::Output(bytes) => (1, bytes),
            Self::Error(bytes) => (2, bytes),
            Self::Wanted => (3, &[]),
            Self::Signal(signal) => (4, std::slice::from_ref(signal)),
            Self::Resize { rows, columns } => {
                size = [rows.to_be_bytes(), columns.to_be_bytes()].concat();
                (6, &size)
            }
            Self::Ended(how) => {
                ended = serde_json::to_vec(how)?;
                (5, &ended)
            }
        };
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MOST);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.push(kind);
        frame.extend(length.to_be_bytes());
        frame.extend(payload);
        to.write_all(&frame).await?;
        to.flush().await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Option<Frame>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Frame::read(&mut &bytes[..]))
    }

    fn written(frame: &Frame) -> io::Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut bytes = Vec::new();
        runtime.block_on(frame.write(&mut bytes)).map(|()| bytes)
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300);
        let ended = prop_oneof![
            any::<u8>().prop_map(Ended::Exited),
            any::<u8>().prop_map(Ended::Signal),
            Just(Ended::TimedOut),
            any::<u8>().prop_map(Ended::OutOfMemory),
            (any::<u8>(), any::<String>())
                .prop_map(|(status, message)| Ended::NotStarted { status, message }),
            any::<String>().prop_map(Ended::Lost),
        ];
        prop_oneof![
            bytes().prop_map(Frame::Input),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::Error),
            Just(Frame::Wanted),
            any::<u8>().prop_map(Frame::Signal),
            (any::<u16>(), any::<u16>())
                .prop_map(|(rows, columns)| Frame::Resize { rows, columns }),
            ended.prop_map(Frame::Ended),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(frame in frames()) {
            prop_assert_eq!(read(&written(&frame).unwrap()).unwrap(), Some(frame));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(frame)) = read(&bytes) {
                prop_assert!(!matches!(frame, Frame::Input(payload) if payload.len() > bytes.len()));
            }
        }
    }

    #[test]
    fn a_frame_has_a_longest_payload_and_an_end() {
        assert_eq!(read(&[]).unwrap(), None);
        assert!(read(&[1, 0, 0, 0, 2, 7]).is_err());
        assert!(read(&[1, 0, 1, 0, 1]).is_err());
        assert!(read(&[4, 0, 0, 0, 0]).is_err());
        assert!(written(&Frame::Input(vec![0; MOST + 1])).is_err());
        assert_eq!(written(&Frame::Output(vec![0; MOST])).unwrap().len(), MOST + 5);
    }
}
