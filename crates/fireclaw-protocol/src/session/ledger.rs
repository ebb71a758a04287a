//! What each channel of the host holds unread, and what waits for room there.
//!
//! yamux keeps every frame in an allocation of its own, so a guest that sends
//! one byte a frame would have 256 KiB of window cost tens of megabytes. The
//! [`super::gate`] therefore lets only [`MAX_SMALL`] small frames of a channel
//! through until its reader has drained it; what comes then is joined here and
//! goes through as one frame.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::wire::{self, Header, WINDOW};

/// Frames with fewer bytes than this are small: yamux's cost for one (about
/// 100 bytes) is no longer hidden by what it carries.
pub(super) const SMALL: usize = 1024;

/// Small frames of a channel that may lie unread at once. A terminal's echo
/// stays well below, and 64 × 100 bytes a channel do not matter.
pub(super) const MAX_SMALL: usize = 64;

/// The accounts of a session's channels; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Accounts>>);

#[derive(Debug, Default)]
struct Accounts {
    channels: HashMap<u32, Account>,
    /// Channels whose reader has drained them while bytes waited for that.
    drained: Vec<u32>,
    /// The gate's task, while it waits for the transport.
    gate: Option<Waker>,
}

#[derive(Debug, Default)]
struct Account {
    /// Bytes that went through and were not read yet.
    unread: usize,
    /// Small frames among them.
    small: usize,
    waiting: Option<Waiting>,
}

/// What came for a channel while it was full of small frames.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    flags: u16,
}

/// What becomes of a frame of data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes through as it is.
    Pass,
    /// It is joined with what waits: [`Ledger::join`] takes its bytes.
    Join,
    /// Nobody has this channel any more.
    Discard,
    /// The guest sent more than it was allowed to.
    Overrun,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, id: u32) {
        self.lock().channels.insert(id, Account::default());
    }

    pub(super) fn close(&self, id: u32) {
        self.lock().channels.remove(&id);
    }

    pub(super) fn is_open(&self, id: u32) -> bool {
        self.lock().channels.contains_key(&id)
    }

    /// The reader of a channel took bytes.
    pub(super) fn read(&self, id: u32, count: usize) {
        let mut accounts = self.lock();
        let Some(account) = accounts.channels.get_mut(&id) else { return };
        account.unread = account.unread.saturating_sub(count);
        if account.unread > 0 {
            return;
        }
        account.small = 0;
        if account.waiting.is_some() {
            accounts.drained.push(id);
            if let Some(gate) = accounts.gate.take() {
                gate.wake();
            }
        }
    }

    /// Charges a frame of data to its channel.
    pub(super) fn charge(&self, header: &Header) -> Verdict {
        let mut accounts = self.lock();
        let Some(account) = accounts.channels.get_mut(&header.channel) else {
            return Verdict::Discard;
        };
        let length = header.length as usize;
        let held = account.waiting.as_ref().map_or(0, |waiting| waiting.bytes.len());
        if length > WINDOW.saturating_sub(account.unread + held) {
            return Verdict::Overrun;
        }
        let is_small = length > 0 && length < SMALL;
        if let Some(waiting) = &mut account.waiting {
            waiting.flags |= header.flags;
            return Verdict::Join;
        }
        if is_small && account.small == MAX_SMALL {
            account.waiting = Some(Waiting { bytes: Vec::new(), flags: header.flags });
            return Verdict::Join;
        }
        account.small += usize::from(is_small);
        account.unread += length;
        Verdict::Pass
    }

    /// Adds bytes of a frame that was to be joined.
    pub(super) fn join(&self, id: u32, bytes: &[u8]) {
        let mut accounts = self.lock();
        if let Some(waiting) = accounts.channels.get_mut(&id).and_then(|a| a.waiting.as_mut()) {
            waiting.bytes.extend_from_slice(bytes);
        }
    }

    /// The frames of a channel that was drained, if there is one; else `gate`
    /// is woken when there is.
    pub(super) fn drained(&self, gate: &Waker) -> Option<Vec<u8>> {
        let mut accounts = self.lock();
        while let Some(id) = accounts.drained.pop() {
            if let Some(frames) = accounts.channels.get_mut(&id).and_then(|a| a.release(id)) {
                return Some(frames);
            }
        }
        accounts.gate = Some(gate.clone());
        None
    }

    /// The frames of any channel for which something waits. Nothing more comes
    /// from the guest: they need no room.
    pub(super) fn rest(&self) -> Option<Vec<u8>> {
        self.lock().channels.iter_mut().find_map(|(id, account)| account.release(*id))
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let accounts = self.lock();
        let bytes = accounts.channels.values().map(|account| {
            account.unread + account.waiting.as_ref().map_or(0, |waiting| waiting.bytes.capacity())
        });
        (bytes.sum(), accounts.channels.values().map(|account| account.small).sum())
    }
}

impl Account {
    fn release(&mut self, id: u32) -> Option<Vec<u8>> {
        let Waiting { bytes, flags } = self.waiting.take()?;
        self.unread += bytes.len();
        self.small = usize::from(!bytes.is_empty() && bytes.len() < SMALL);
        let mut frames = Vec::with_capacity(bytes.len() + 2 * wire::HEADER);
        // yamux forgets the body of a frame that resets: that comes after it.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let kind = wire::DATA;
        let joined = Header { kind, flags: flags & !wire::RST, channel: id, length };
        frames.extend_from_slice(&joined.encode());
        frames.extend_from_slice(&bytes);
        if flags & wire::RST != 0 {
            let reset = Header { kind, flags: wire::RST, channel: id, length: 0 };
            frames.extend_from_slice(&reset.encode());
        }
        Some(frames)
    }
}
