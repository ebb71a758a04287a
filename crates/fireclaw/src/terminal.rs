//! Our own terminal, handed to a command in the guest: what is typed goes to the command as it
//! is, and the guest's terminal sees to lines, echo and signals.

use std::env;
use std::future::pending;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, Once, PoisonError};

use fireclaw_protocol::message::{self, TerminalSize};
use rustix::process::{getpid, kill_process};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{CliError, Kind, Result};
use crate::stdin::{foreground, is_in_background};

/// How the terminal was before it was handed over.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Our terminal. Dropping it gives it back as it was.
#[derive(Debug)]
pub struct Terminal {
    /// What happens to it, once it is handed over.
    watch: Option<Watch>,
}

/// What happens to a terminal that is handed over.
#[derive(Debug)]
struct Watch {
    /// It has another size.
    changed: Signal,
    /// Somebody else is to have it for a while (`kill -TSTP`).
    stopped: Signal,
    /// We go on after a stop, in which somebody else had it.
    continued: Signal,
    /// It is to be handed over once more.
    is_due: bool,
}

impl Terminal {
    /// The terminal of standard input and output.
    pub fn open() -> Result<Self> {
        for (stream, name) in [(isatty(stdin()), "input"), (isatty(stdout()), "output")] {
            if !stream {
                let problem = format!("standard {name} is not a terminal");
                return Err(CliError::usage(problem)
                    .hint("leave --tty out: standard input and output are forwarded as they are"));
            }
        }
        Ok(Self { watch: None })
    }

    /// Its kind and size, for the guest.
    pub fn described(&self) -> message::Terminal {
        let kind = env::var_os("TERM").filter(|kind| !kind.is_empty());
        let kind = kind.unwrap_or_else(|| "xterm".into()).into_vec();
        message::Terminal { kind: kind.into(), size: size() }
    }

    /// Hands it over, once we are in the foreground: from now on every key is the command's.
    /// Cancel-safe.
    pub async fn hand_over(&mut self) -> Result<()> {
        static ON_PANIC: Once = Once::new();
        // Who sets its modes in the background is stopped (SIGTTOU), and rightly: they are
        // somebody else's.
        foreground().await;
        let before = tcgetattr(stdin()).map_err(|e| failed("read its modes", e.into()))?;
        ON_PANIC.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                usual(panic);
            }));
        });
        // Not earlier: until now Ctrl-Z stops us as any other program.
        let on = |kind| signal(kind).map_err(|e| failed("listen for its signals", e));
        self.watch = Some(Watch {
            changed: on(SignalKind::window_change())?,
            stopped: on(SignalKind::from_raw(libc::SIGTSTP))?,
            continued: on(SignalKind::from_raw(libc::SIGCONT))?,
            is_due: false,
        });
        let mut raw = before.clone();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)
            .map_err(|e| failed("set its modes", e.into()))
    }

    /// Waits until it has another size, or is ours again. Cancel-safe.
    pub async fn resized(&mut self) -> TerminalSize {
        let Some(watch) = &mut self.watch else { return pending().await };
        while !watch.is_due {
            tokio::select! {
                _ = watch.changed.recv() => return size(),
                _ = watch.stopped.recv() => {
                    give_back();
                    let _ = kill_process(getpid(), rustix::process::Signal::STOP);
                }
                _ = watch.continued.recv() => watch.is_due = true,
            }
        }
        foreground().await;
        watch.is_due = false;
        if let Ok(mut modes) = tcgetattr(stdin()) {
            modes.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
        }
        size()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Has the terminal as it was before it was handed over, if it was and is still ours.
fn give_back() {
    // A panic may come with the lock held.
    if let Ok(before) = BEFORE.try_lock()
        && let Some(before) = &*before
        && !is_in_background()
    {
        // Not after what is still to be written: a terminal may have stopped taking it.
        let _ = tcsetattr(stdin(), OptionalActions::Now, before);
    }
}

fn size() -> TerminalSize {
    let size = tcgetwinsize(stdout()).ok();
    let size = size.map(|size| TerminalSize { rows: size.ws_row, columns: size.ws_col });
    size.unwrap_or_default()
}

fn failed(what: &str, error: std::io::Error) -> CliError {
    CliError::new(Kind::System, format!("the terminal: cannot {what}: {error}"))
}
