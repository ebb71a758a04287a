//! Why the overseer cannot start or go on, with what to do about it.

use fireclaw_daemon::Error;

use crate::error::{CliError, Kind};

/// What the daemon says.
pub fn daemon_error(error: Error) -> CliError {
    let message = error.to_string();
    match error {
        Error::AlreadyRuns { .. } => CliError::new(Kind::Usage, message)
            .hint("stop that one first, or set FIRECLAW_HOME to another directory"),
        Error::NewerState { .. } => CliError::new(Kind::System, message)
            .hint("use that one, or set FIRECLAW_HOME to another directory"),
        Error::StateFile { path, damaged: true, .. } => {
            let path = path.display();
            CliError::new(Kind::System, message).hint(format!(
                "put a backup of it in its place; or begin anew: mv {path} {path}.damaged, and \
                 the same with {path}-wal if it is there. Lost then are the list of agents with \
                 their channels, open messages and questions, and the audit log; workspaces and \
                 running VMs are kept"
            ))
        }
        Error::StateFile { damaged: false, .. } => CliError::new(Kind::System, message).hint(
            "check that it is a file, that you may read and write it, and that the disk has room",
        ),
        Error::State(_) => CliError::new(Kind::System, message).hint(
            "it is state.db under FIRECLAW_HOME: may it be written to, and is there room? \
             `fireclaw doctor` looks at both",
        ),
        Error::File(error) => error.into(),
        Error::Image(error) => error.into(),
        Error::Machine(error) => error.into(),
        Error::Chat(error) => chat_error(error),
        Error::Model(error) => model_error(error.into()),
        _ => CliError::new(Kind::System, message),
    }
}

/// What the private IRC server says.
pub fn irc_error(error: fireclaw_irc::Error) -> CliError {
    use fireclaw_irc::Error as Irc;
    let message = error.to_string();
    match error {
        Irc::ServerMissing { .. } => CliError::new(Kind::Host, message).hint(
            "install ngircd, unpack its package into tools/ngircd under FIRECLAW_HOME as \
                 `make demo` does, or use --server HOST",
        ),
        Irc::ServerFailed { .. } => {
            CliError::new(Kind::Host, message).hint("is the port taken? --port names another")
        }
        other => chat_error(other.into()),
    }
}

/// What the chat network says.
fn chat_error(error: fireclaw_chat::Error) -> CliError {
    use fireclaw_chat::Error as Chat;
    let message = error.to_string();
    match error {
        Chat::Name { what, .. } => CliError::new(Kind::Usage, message).hint(match what {
            "channel" => "a channel begins with #, in quotes: --channel '#control'",
            _ => "a nick is letters, digits, - and _, and begins with a letter",
        }),
        Chat::Setting { .. } => CliError::new(Kind::Usage, message)
            .hint("`fireclaw overseer --help` lists all options and variables"),
        Chat::File(error) => error.into(),
        _ => CliError::new(Kind::System, message),
    }
}

/// What the model server's side says.
pub fn model_error(error: fireclaw_llama::Error) -> CliError {
    let hint = match &error {
        fireclaw_llama::Error::Processor { .. } => {
            "apt-get install cmake make g++, and it is compiled here once; or name a model server \
             with --model-server URL"
        }
        fireclaw_llama::Error::ServerDied { .. } | fireclaw_llama::Error::Build { .. } => {
            "name a model server with --model-server URL, install Ollama, or name a llama-server \
             that was built for this processor in FIRECLAW_LLAMA_SERVER"
        }
        _ => "name a model server with --model-server URL, or install Ollama",
    };
    CliError::new(Kind::Host, error.to_string()).hint(hint)
}
