//! Where the time of a start goes.

use std::time::Duration;

use fireclaw_protocol::hello::GuestHello;

/// What ends when it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The network is there.
    Network,
    /// Everything is found that the VMM needs.
    Prepare,
    /// The VMM runs.
    VmmStart,
    /// The memory of a snapshot is mapped.
    Restore,
    /// A VM was taken from a pool.
    FromPool,
    /// The guest knows who it is.
    Identity,
}

impl Phase {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Prepare => "prepare",
            Self::VmmStart => "VMM start",
            Self::Restore => "restore",
            Self::FromPool => "from pool",
            Self::Identity => "identity",
        }
    }
}

/// Who watches a start. Nobody, as `()`.
pub trait Watch {
    /// A phase ends.
    fn ends(&mut self, _phase: Phase) {}

    /// The guest has booted and says how long its parts took.
    fn booted(&mut self, _hello: &GuestHello) {}

    /// The guest's wall clock was set; how far it may be from the host's.
    fn set_clock(&mut self, _within: Duration) {}

    /// Something went another way than usual; the start goes on.
    fn note(&mut self, _text: String) {}

    /// A snapshot is being made, which takes a boot.
    fn makes_snapshot(&mut self) {}
}

impl Watch for () {}
