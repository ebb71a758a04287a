//! What is said inside a session: CBOR ([RFC 8949]) with numbered fields.
//!
//! A field that an older side does not know is skipped, one that it lacks is
//! `None`; a number is never given a second meaning.
//!
//! [RFC 8949]: https://www.rfc-editor.org/rfc/rfc8949

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// The first message on a channel, from the host: what the channel is for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Open {
    /// Start a command. This channel then carries [`ExecControl`] to the guest
    /// and [`ExecEvent`] back.
    #[n(0)]
    Exec(#[n(0)] ExecRequest),
    /// Raw bytes to the standard input of command `exec`.
    #[n(1)]
    Stdin {
        /// The [`ExecRequest::id`] that this channel belongs to.
        #[n(0)]
        exec: u32,
    },
    /// Raw bytes from the standard output of command `exec`.
    #[n(2)]
    Stdout {
        /// The [`ExecRequest::id`] that this channel belongs to.
        #[n(0)]
        exec: u32,
    },
    /// Raw bytes from the standard error of command `exec`.
    #[n(3)]
    Stderr {
        /// The [`ExecRequest::id`] that this channel belongs to.
        #[n(0)]
        exec: u32,
    },
    /// Connect to a TCP port of the guest's own 127.0.0.1. The guest answers
    /// with [`Connected`]; if that is without a problem, raw bytes follow both
    /// ways, and each direction ends by itself. Since generation 2.
    #[n(4)]
    Connect {
        /// The port, 1 to 65535.
        #[n(0)]
        port: u16,
    },
    /// Start the VM's main command, which goes on when the session ends. There is one in the
    /// life of a VM. The guest answers with [`ExecEvent::Started`] or [`ExecEvent::Failed`].
    /// The request's id has no meaning. Since generation 5.
    #[n(5)]
    Main(#[n(0)] MainRequest),
    /// Follow the main command. This channel then carries [`MainControl`] to the guest and
    /// [`MainEvent`] back. Since generation 5.
    #[n(6)]
    Attach {
        /// Where its output begins.
        #[n(0)]
        from: AttachFrom,
    },
    /// [`MainInput`] to the main command. The end of the channel is not that of the input.
    /// Since generation 5.
    #[n(7)]
    Input,
}

/// Where what a follower of the main command hears begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum AttachFrom {
    /// Where the last log ended ([`MainControl::Taken`]). The command waits for a log that is
    /// slow, and there is one: a second one ends the first.
    #[n(0)]
    Log,
    /// With the oldest that the guest has kept. What the host is too slow for is lost to it.
    #[n(1)]
    Start,
    /// With what comes from now on; else the same.
    #[n(2)]
    Now,
}

/// The main command of a VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct MainRequest {
    /// The command.
    #[n(0)]
    pub command: ExecRequest,
    /// Whether it reads what [`Open::Input`] brings; else it reads nothing. One with a
    /// terminal always does.
    #[n(1)]
    pub input: bool,
}

/// A piece of what the main command reads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MainInput {
    /// Some bytes; none for the end of its standard input.
    #[n(0)]
    pub bytes: ByteVec,
}

/// What the host says to the main command, or of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MainControl {
    /// Send this signal (Linux's number) to its process group.
    #[n(0)]
    Signal(#[n(0)] i32),
    /// Its terminal has this size now; nothing happens if it has none.
    #[n(1)]
    Resize(#[n(0)] TerminalSize),
    /// The log has written down so many bytes of what this channel brought. What is written
    /// down is not sent to the next log.
    #[n(2)]
    Taken(#[n(0)] u64),
}

/// What the guest says of the main command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MainEvent {
    /// It wrote this.
    #[n(0)]
    Output {
        /// Where.
        #[n(0)]
        stream: OutputStream,
        /// What; at most [`MAX_OUTPUT`] bytes.
        #[n(1)]
        bytes: ByteVec,
    },
    /// So many bytes of its output are lost: they were more than a guest keeps.
    #[n(1)]
    Lost(#[n(0)] u64),
    /// It ended; the last event. The second number is as in [`ExecEvent::Exited`].
    #[n(2)]
    Exited(#[n(0)] ExitStatus, #[n(1)] Option<u32>),
    /// None was started; the last event.
    #[n(3)]
    None,
}

/// The most bytes in one [`MainEvent::Output`].
pub const MAX_OUTPUT: usize = 16 * 1024;

/// Where a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum OutputStream {
    /// Standard output, or its terminal.
    #[n(0)]
    Stdout,
    /// Standard error.
    #[n(1)]
    Stderr,
}

/// Whether somebody listens on the port that [`Open::Connect`] named.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Connected {
    /// Why there is no connection. Untrusted text.
    #[n(0)]
    pub problem: Option<String>,
}

/// A command to run in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ExecRequest {
    /// Chosen by the host, unique within a session.
    #[n(0)]
    pub id: u32,
    /// The program and its arguments: bytes, not necessarily UTF-8, without NUL.
    #[n(1)]
    pub argv: Vec<ByteVec>,
    /// Variables added to the guest's default environment.
    #[n(2)]
    pub env: Vec<EnvVar>,
    /// The directory to start in; the user's home if absent.
    #[n(3)]
    pub workdir: Option<ByteVec>,
    /// A user name or number of the guest's `/etc/passwd`; root if absent.
    #[n(4)]
    pub user: Option<String>,
    /// After so many milliseconds the command's whole process tree is killed.
    #[n(5)]
    pub timeout_ms: Option<u64>,
    /// A terminal for all three streams; pipes if absent. What the command writes then comes
    /// over `Stdout`, and `Stderr` ends at once. The end of `Stdin` is typed as the terminal's
    /// end-of-file character. Since generation 4.
    #[n(6)]
    pub terminal: Option<Terminal>,
}

/// The terminal of a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Terminal {
    /// Its kind, for the variable `TERM`; without NUL.
    #[n(0)]
    pub kind: ByteVec,
    /// Its size at first.
    #[n(1)]
    pub size: TerminalSize,
}

/// How large a terminal is, in characters. Zero stands for a size that is not known
/// (`TIOCSWINSZ`, ioctl_tty(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct TerminalSize {
    /// Lines.
    #[n(0)]
    pub rows: u16,
    /// Characters in each.
    #[n(1)]
    pub columns: u16,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EnvVar {
    /// The name: not empty, without `=` or NUL.
    #[n(0)]
    pub name: ByteVec,
    /// The value: without NUL.
    #[n(1)]
    pub value: ByteVec,
}

/// What the host says about a running command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ExecControl {
    /// Send this signal (Linux's number) to the command's process group.
    #[n(0)]
    Signal(#[n(0)] i32),
    /// The command's terminal has this size now; nothing happens if it has none. Since
    /// generation 4.
    #[n(1)]
    Resize(#[n(0)] TerminalSize),
}

/// What the guest says about a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ExecEvent {
    /// The program runs.
    #[n(0)]
    Started,
    /// The program could not be started; the last event.
    #[n(1)]
    Failed {
        /// What stood in the way.
        #[n(0)]
        cause: ExecFailure,
        /// The cause in words, for a person. Untrusted text.
        #[n(1)]
        message: String,
    },
    /// The program ended; the last event.
    #[n(2)]
    Exited(
        #[n(0)] ExitStatus,
        /// How many processes the kernel killed meanwhile because the VM's memory ran
        /// out, of this command or of another. Absent: none, or the guest is too old to say.
        #[n(1)]
        Option<u32>,
    ),
}

impl ExecEvent {
    /// Whether the VM's memory ran out under a program that did not succeed.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Exited(status, Some(1..)) => *status != ExitStatus::Code(0),
            _ => false,
        }
    }
}

/// Why a command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ExecFailure {
    /// No such program (a shell's status 127).
    #[n(0)]
    NotFound,
    /// There is such a file, but it cannot be executed (a shell's status 126).
    #[n(1)]
    NotExecutable,
    /// No such user in the guest.
    #[n(2)]
    NoSuchUser,
    /// The working directory cannot be entered.
    #[n(3)]
    BadWorkdir,
    /// The request itself is not valid: empty `argv`, NUL inside.
    #[n(4)]
    BadRequest,
    /// Anything else: out of memory, too many processes, a system fault.
    #[n(5)]
    Other,
}

impl ExecFailure {
    /// The exit status that `env`, `timeout` and shells give for it.
    pub fn status(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::NoSuchUser | Self::BadWorkdir | Self::BadRequest | Self::Other => 125,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ExitStatus {
    /// It exited with this status, 0 to 255.
    #[n(0)]
    Code(#[n(0)] u8),
    /// This signal ended it.
    #[n(1)]
    Signal(#[n(0)] u8),
    /// Its time ran out and its process tree was killed.
    #[n(2)]
    TimedOut,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::decode;

    /// As guests of generation 2 wrote it before memory was spoken of: `[2, [[0, [7]]]]`.
    const OLD_EXITED: &[u8] = b"\x82\x02\x81\x82\x00\x81\x07";

    #[test]
    fn an_older_guest_s_end_of_a_command_is_understood() {
        let event: ExecEvent = decode(OLD_EXITED).unwrap();
        assert_eq!(event, ExecEvent::Exited(ExitStatus::Code(7), None));
        assert!(!event.is_out_of_memory());
    }

    #[test]
    fn an_end_that_nobody_told_of_memory_is_written_as_ever() {
        let bytes = minicbor::to_vec(ExecEvent::Exited(ExitStatus::Code(7), None)).unwrap();
        assert_eq!(bytes, OLD_EXITED);
    }

    /// As hosts of generation 3 wrote a command before there were terminals:
    /// `[1, [h'6c73'], [], null, null, 9]`.
    const OLD_REQUEST: &[u8] = b"\x86\x01\x81\x42ls\x80\xf6\xf6\x09";

    #[test]
    fn an_older_host_s_command_has_no_terminal_and_one_without_is_written_as_ever() {
        let request: ExecRequest = decode(OLD_REQUEST).unwrap();
        assert_eq!((request.timeout_ms, &request.terminal), (Some(9), &None));
        assert_eq!(minicbor::to_vec(request).unwrap(), OLD_REQUEST);
    }

    #[test]
    fn memory_is_to_blame_only_for_what_failed() {
        for (status, kills, blamed) in [
            (ExitStatus::Signal(9), Some(1), true),
            (ExitStatus::Code(137), Some(2), true),
            (ExitStatus::TimedOut, Some(1), true),
            (ExitStatus::Code(0), Some(1), false),
            (ExitStatus::Signal(9), Some(0), false),
            (ExitStatus::Signal(9), None, false),
        ] {
            assert_eq!(ExecEvent::Exited(status, kills).is_out_of_memory(), blamed, "{status:?}");
        }
    }
}
