//! The least an init can do: write one byte to the console and restart, which ends the VMM.
//!
//! `make bench` boots it to measure what the VMM and the kernel cost alone.

use std::io::Write;

fn main() {
    let _ = std::io::stdout().write_all(b"!");
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}
