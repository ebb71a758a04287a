//! Our own standard input, which may be a terminal that belongs to somebody else just now.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::stdio::stdin;
use rustix::termios::tcgetpgrp;
use tokio::io::{AsyncReadExt, Stdin};

/// How often a job in the background looks whether it has come to the foreground: nothing
/// tells it, and a person who types does not notice a fifth of a second.
const POLL: Duration = Duration::from_millis(200);

/// Standard input. In the background (`fireclaw run … &`) it waits until this process is in
/// the foreground, instead of being stopped with the whole job by SIGTTIN: the command goes
/// on, and reads what is typed once the job is fetched with `fg`.
#[derive(Debug)]
pub struct Input(Stdin);

impl Input {
    /// From now on SIGTTIN stops this process no more.
    pub fn open() -> Self {
        ignore_terminal_input_signal();
        Self(tokio::io::stdin())
    }

    /// Reads as much as there is, at most what the buffer takes; 0 at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            foreground().await;
            match self.0.read(buffer).await {
                // It went to the background while it waited (`^Z` and `bg`), and may be in
                // the foreground again by now.
                Err(e) if is_io(&e) && is_on_a_terminal() => tokio::time::sleep(POLL).await,
                read => return read,
            }
        }
    }
}

/// Waits until this process is in the foreground, if standard input is a terminal.
pub async fn foreground() {
    while is_in_background() {
        tokio::time::sleep(POLL).await;
    }
}

/// What a read gives in the background when SIGTTIN is ignored (termios(3)).
fn is_io(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Whether standard input is the terminal of this session, and it is still there: one that
/// was hung up answers nothing.
fn is_on_a_terminal() -> bool {
    tcgetpgrp(stdin()).is_ok()
}

/// Whether standard input is the terminal of this session and another job has it.
pub fn is_in_background() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground != getpgrp())
}

/// Has reads of the terminal in the background fail instead of stopping this process, and
/// with it all of its process group.
#[allow(unsafe_code)]
fn ignore_terminal_input_signal() {
    // SAFETY: SIG_IGN is no handler that could run; nothing else in this program sets or
    // relies on what SIGTTIN does.
    unsafe {
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
    }
}
