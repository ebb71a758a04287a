//! The header of a yamux frame, and what a guest may put there.

/// Bytes of a channel that may lie unread: yamux's window, which the host
/// never raises.
pub(super) const WINDOW: usize = yamux::DEFAULT_CREDIT as usize;

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// A frame with a body.
pub(super) const DATA: u8 = 0;
/// More room for the other side's data.
pub(super) const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;

/// Opens a channel (in a ping: asks).
pub(super) const SYN: u16 = 1;
pub(super) const ACK: u16 = 2;
pub(super) const FIN: u16 = 4;
/// Ends a channel at once.
pub(super) const RST: u16 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) flags: u16,
    pub(super) channel: u32,
    /// Bytes of the body; in other frames than [`DATA`] a number.
    pub(super) length: u32,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[1] = self.kind;
        bytes[2..4].copy_from_slice(&self.flags.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.channel.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads what a guest sent; the error says what it may not send.
    pub(super) fn from_guest(bytes: [u8; HEADER]) -> Result<Self, &'static str> {
        let [version, kind, f0, f1, c0, c1, c2, c3, l0, l1, l2, l3] = bytes;
        let header = Self {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            channel: u32::from_be_bytes([c0, c1, c2, c3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        };
        if version != 0 {
            return Err("a frame of an unknown version");
        }
        match header.kind {
            DATA | WINDOW_UPDATE if header.flags & SYN != 0 => {
                Err("the guest wants to open a channel")
            }
            DATA if header.flags & !(ACK | FIN | RST) != 0 => Err("a frame with unknown flags"),
            DATA if header.length as usize > WINDOW => Err("a frame that is larger than a window"),
            // Ends go with data, after all that was sent before them.
            WINDOW_UPDATE if header.flags & !ACK != 0 => Err("a window with unknown flags"),
            PING if !matches!(header.flags, SYN | ACK) => Err("a ping with unknown flags"),
            DATA | WINDOW_UPDATE | PING | GO_AWAY => Ok(header),
            _ => Err("a frame of an unknown kind"),
        }
    }
}
