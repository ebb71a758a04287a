//! The built-in agent: it runs in its microVM as user `agent`, and speaks
//! [`fireclaw_protocol::agent`] with the host.
//!
//! For each message it builds a prompt, asks the model through the host, runs the
//! tools that the model calls, and says the answer. Places, which are channels and
//! private talks, do not wait for each other; within one, messages are dealt with in
//! order. What it wants to remember is in the workspace, so it can be killed at any
//! time:
//!
//! | in the workspace | what |
//! | --- | --- |
//! | `MEMORY.md` | the index of the memories that are for everyone, in every prompt |
//! | `memory/*.md` | what it saved for everyone |
//! | `memory/PLACE/` | the same for one channel, or for one person in private |
//! | `.fireclaw/history/*.jsonl` | what was said in each conversation, and what was called for it |
//! | `answers/*.md` | answers that were too long to be said |
//! | `skills/*/SKILL.md`, `skills/*/run` | tools of its own |
//!
//! It has no rights to guard: whatever its tools may do, the VM around it may.
//! The rules it obeys keep a model from accidents, not a person from breaking out.

mod answer;
mod built_in;
mod clock;
mod context;
mod cut;
mod files;
mod history;
mod host;
mod journal;
mod lines;
mod memory;
pub mod oom;
mod process;
mod prompt;
mod queue;
mod recall;
mod repeats;
mod rounds;
mod rules;
mod session;
mod shape;
mod skills;
mod slug;
mod told;
mod tools;

use std::path::PathBuf;

use fireclaw_protocol::agent::WORKSPACE;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where the host puts the skills of an agent's template.
pub const TEMPLATE_SKILLS: &str = "/run/fireclaw/skills";

/// Where an agent's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What outlives the VM.
    pub workspace: PathBuf,
    /// Directories of skills. Of two with the same name, the first one's is used.
    pub skills: Vec<PathBuf>,
}

impl Default for Paths {
    /// As they are in a VM. The template's skills come first, so that an agent does
    /// not put its own in their place.
    fn default() -> Self {
        let workspace = PathBuf::from(WORKSPACE);
        let skills = vec![PathBuf::from(TEMPLATE_SKILLS), workspace.join("skills")];
        Self { workspace, skills }
    }
}

/// Runs an agent until its input ends; then ends what it has under way.
///
/// `input` carries one [`Event`](fireclaw_protocol::agent::Event) a line and `output` one
/// [`Action`](fireclaw_protocol::agent::Action). A line that is too long or not
/// understood is left out, and the log on standard error says so.
///
/// The process becomes the reaper of its descendants, to end what a command leaves
/// behind. So nothing else in it should start processes at the same time.
///
/// # Errors
/// When `input` or `output` fails. Trouble with files, tools or the model is no error: it
/// is said, or noted to the host.
///
/// # Panics
/// Outside a tokio runtime with I/O and time.
pub async fn run(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + 'static,
    home: Paths,
) -> std::io::Result<()> {
    tokio::task::LocalSet::new().run_until(session::serve(input, output, home)).await
}

/// Writes a line to the log. A log that cannot be written is no reason to end.
macro_rules! log {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "agent: {}", format_args!($($argument)*));
    }};
}
pub(crate) use log;
