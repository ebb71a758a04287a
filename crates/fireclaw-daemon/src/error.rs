//! Why something could not be done. Every text can be shown to people.

use std::path::PathBuf;

use fireclaw_host::PathError;

use crate::question::Question;
use crate::{Condition, SandboxCondition};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another daemon owns this home.
    #[error("another overseer is already running in {}", home.display())]
    AlreadyRuns {
        /// The home.
        home: PathBuf,
    },
    /// The state was made by a newer Fireclaw.
    #[error(
        "{} was written by a newer Fireclaw: version {version}; this one reads up to {known}",
        path.display()
    )]
    NewerState {
        /// Its file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The newest version that this program knows.
        known: usize,
    },
    /// The file of the state cannot be used. It is left as it is.
    #[error("cannot use the state file {}: {problem}", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// Whether its content is not what was written; else the system refuses it.
        damaged: bool,
        /// What is wrong with it.
        problem: String,
    },
    /// The state could not be read or written.
    #[error("the state: {0}")]
    State(rusqlite::Error),
    /// An agent of this name or nick is there.
    #[error("the name {name} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no such agent.
    #[error("there is no agent {name}{}", known(known_names))]
    UnknownAgent {
        /// The name asked for.
        name: String,
        /// Those that there are.
        known_names: Vec<String>,
    },
    /// There is no such sandbox.
    #[error("there is no sandbox {name}{}", if *is_agent { "; it is an agent".into() } else { listed(known_names) })]
    UnknownSandbox {
        /// The name asked for.
        name: String,
        /// Whether an agent has it.
        is_agent: bool,
        /// Those that there are.
        known_names: Vec<String>,
    },
    /// The sandbox is not in a condition for this.
    #[error("{name} is {}", condition.as_str())]
    SandboxNotNow {
        /// The sandbox.
        name: String,
        /// What it is.
        condition: SandboxCondition,
    },
    /// The sandbox has no program of its own.
    #[error("{name} has no command to attach to")]
    NoCommand {
        /// The sandbox.
        name: String,
    },
    /// The program of a sandbox could not be started.
    #[error("the command could not be started: {message}")]
    Command {
        /// The exit status that a shell gives for it.
        status: u8,
        /// Why, in the guest's words, escaped.
        message: String,
    },
    /// The session with a guest broke.
    #[error(transparent)]
    Session(#[from] fireclaw_protocol::Error),
    /// A name that cannot be one.
    #[error("{name:?} cannot be a name: {problem}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// A template is unknown or wrong.
    #[error("{}{}", .0, others(.0))]
    Template(#[from] fireclaw_template::Error),
    /// The model could not be asked.
    #[error(transparent)]
    Model(#[from] fireclaw_llm::Error),
    /// A VM could not be made or taken over.
    #[error(transparent)]
    Sandbox(#[from] fireclaw_sandbox::Error),
    /// A VM did not come up, or went away.
    #[error(transparent)]
    Machine(#[from] fireclaw_vm::Error),
    /// Kernel or image are not there.
    #[error(transparent)]
    Image(#[from] fireclaw_image::Error),
    /// The network of a VM.
    #[error(transparent)]
    Network(#[from] fireclaw_net::Error),
    /// The chat server.
    #[error(transparent)]
    Chat(#[from] fireclaw_chat::Error),
    /// What is asked for is not built yet, or not possible here.
    #[error("{0}")]
    Unsupported(String),
    /// The agent is not in a state for this.
    #[error("{name} is {}{}", condition.as_str(), why(problem.as_deref()))]
    NotNow {
        /// The agent.
        name: String,
        /// What it is.
        condition: Condition,
        /// Why, if that is to be mended first.
        problem: Option<String>,
    },
    /// An agent or a sandbox was not stopped, and has to be for this.
    #[error("{name} has not been stopped")]
    Running {
        /// Its name.
        name: String,
    },
    /// Nobody of this name has left a workspace.
    #[error("{name} has no workspace")]
    NoWorkspace {
        /// The agent.
        name: String,
    },
    /// An agent has as many open questions as it may have.
    #[error("too many questions are already open")]
    TooManyQuestions,
    /// There is no open question of this number.
    #[error("there is no open question #{0}")]
    NoQuestion(u64),
    /// A question was answered that may not be the one that was read.
    #[error("#{} was not answered: {problem}", question.id)]
    Unconfirmed {
        /// The question as it is.
        question: Box<Question>,
        /// What is wrong with the answer.
        problem: &'static str,
    },
    /// The agent's workspace could not be made or mounted.
    #[error("the workspace: {0}")]
    Workspace(String),
    /// The template's skills could not be taken along.
    #[error("the template's skills: {0}")]
    Skills(String),
    /// The agent's program ended or said nothing.
    #[error("the agent program {0}")]
    Program(String),
    /// A file of the daemon's.
    #[error(transparent)]
    File(#[from] PathError),
    /// Another call to the system failed.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// The daemon is ending.
    #[error("the daemon is ending")]
    Ending,
}

impl From<rusqlite::Error> for Error {
    /// Its words are part of ours, so it is not told again as the source.
    fn from(cause: rusqlite::Error) -> Self {
        Self::State(cause)
    }
}

/// The result of something asked of the daemon.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the model server answers, and does not have the model.
    pub fn is_missing_model(&self) -> bool {
        matches!(self, Self::Model(fireclaw_llm::Error::ModelMissing { .. }))
    }

    /// Whether the state could not be written because its disk is full.
    pub(crate) fn is_full_disk(&self) -> bool {
        let Self::State(e) = self else { return false };
        e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }
}

/// What there is instead of an unknown template.
fn others(error: &fireclaw_template::Error) -> String {
    match error {
        fireclaw_template::Error::Unknown { near: Some(near), .. } => {
            format!("; did you mean {near}?")
        }
        fireclaw_template::Error::Unknown { known, .. } => {
            format!("; there are: {}", known.join(", "))
        }
        _ => String::new(),
    }
}

fn why(problem: Option<&str>) -> String {
    problem.map(|problem| format!(": {problem}")).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; there are: {}", names.join(", ")),
    }
}

fn known(names: &[String]) -> String {
    match names {
        [] => "; none runs".to_owned(),
        names => format!("; there are: {}", names.join(", ")),
    }
}
