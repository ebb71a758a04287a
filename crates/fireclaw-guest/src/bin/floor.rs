//! The least an init can do: write one byte to the console and restart, which ends the VMM.
//!
//! `make bench` boots it to measure what the VMM and the kernel cost alone.

use std::io::Write;

fn main() {
    // Standard error is not buffered.
    let _ = std::io::stderr().write_all(b"!");
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}
