//! Where the log goes, and in which form.
//!
//! Every crate says what happens by `tracing`; only programs decide what becomes of it, by
//! [`start`]. Lines go to standard error, to systemd's journal with their fields if standard
//! error leads there, and to a file of bounded size, from which [`file::Reader`] reads them.
//! Nothing here waits: a reader who does not read loses lines, and is told how many.
//!
//! What is logged is the caller's to choose, and these rules hold everywhere: no secret, no
//! message of a person, and text of a guest only escaped.

mod few;
pub mod file;
mod journal;
mod lines;

pub use few::Few;

use std::path::Path;
use std::sync::OnceLock;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// The variable that says what is logged, as `tracing_subscriber`'s `EnvFilter` reads it.
pub const FILTER: &str = "FIRECLAW_LOG";

/// The form of lines on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, message, fields.
    Human,
    /// One JSON object per line.
    Json,
}

/// What is logged where.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The form on standard error. Absent: the journal's own if standard error leads there,
    /// else for people.
    pub format: Option<Format>,
    /// A file that gets the lines too.
    pub file: Option<&'a Path>,
    /// What is logged unless [`FILTER`] says otherwise, such as `info`.
    pub filter: &'a str,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("{FILTER}={text:?}: {problem}")]
    Filter {
        /// What it is.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The target of what a person was told in plain words besides: not said twice to people.
pub const TOLD: &str = "fireclaw::told";

static STARTED: OnceLock<bool> = OnceLock::new();

/// Whether lines on standard error are for people, who may be told something in plain words:
/// also of a program that has no log. Else all of it has to be events.
pub fn is_for_people() -> bool {
    *STARTED.get().unwrap_or(&true)
}

/// Starts the log of this program, once. From then on `say!` is an event of it.
///
/// # Errors
/// [`Error::Filter`].
pub fn start(options: Options<'_>) -> Result<(), Error> {
    let text = std::env::var(FILTER).ok().filter(|text| !text.trim().is_empty());
    let text = text.unwrap_or_else(|| options.filter.to_owned());
    let filter = EnvFilter::builder()
        .parse(&text)
        .map_err(|e| Error::Filter { text, problem: e.to_string() })?;
    let mut is_for_people = false;
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        vec![match (options.format, journal::Journal::if_stderr_leads_there()) {
            (None, Some(journal)) => journal.boxed(),
            (Some(Format::Json), _) => json(fireclaw_say::raw_to_stderr),
            (None | Some(Format::Human), _) => {
                is_for_people = true;
                let untold = filter_fn(|metadata| metadata.target() != TOLD);
                human::<0, _>(fireclaw_say::raw_to_stderr).with_filter(untold).boxed()
            }
        }];
    layers.extend(options.file.map(|path| human::<1, _>(file::writer(path))));
    // Libraries may show what is none of a log's: headers, bodies. They are heard when
    // something is wrong.
    let ours = filter_fn(|metadata| {
        metadata.target().starts_with("fireclaw") || *metadata.level() <= Level::WARN
    });
    let subscriber = tracing_subscriber::registry().with(layers).with(filter).with(ours);
    if tracing::subscriber::set_global_default(subscriber).is_ok()
        && STARTED.set(is_for_people).is_ok()
    {
        fireclaw_say::route(|text| {
            let text = text.strip_prefix("fireclaw: ").unwrap_or(text);
            tracing::info!(target: "fireclaw", "{text}");
        });
    }
    Ok(())
}

fn human<const LAYER: usize, S>(
    write: impl Fn(&str) + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let write = lines::Writer::new(move |line: &str| write(&lines::harmless(line)));
    tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .fmt_fields(lines::Fields::<LAYER>::new())
        .with_writer(write)
        .boxed()
}

fn json<S>(write: impl Fn(&str) + Send + Sync + 'static) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .log_internal_errors(false)
        .with_writer(lines::Writer::new(write))
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, info_span};

    use super::*;

    fn logged(
        layer: impl Fn(Box<dyn Fn(&str) + Send + Sync>) -> Box<dyn Layer<Registry> + Send + Sync>,
    ) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let layer = layer(Box::new(move |line: &str| heard.lock().unwrap().push(line.to_owned())));
        let subscriber = tracing_subscriber::registry().with(vec![layer, human::<9, _>(|_| ())]);
        tracing::subscriber::with_default(subscriber, || {
            let span = info_span!("agent", agent = "worker", sandbox = tracing::field::Empty);
            let _entered = span.enter();
            span.record("sandbox", "fireclaw-1");
            info!(message_id = 7, "ready\n\x1b[2J\u{202e}");
        });
        let lines = lines.lock().unwrap();
        lines.clone()
    }

    #[test]
    fn a_line_for_people_is_one_line_and_harmless() {
        let lines = logged(|write| human::<0, _>(move |line: &str| write(line)));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        assert!(!line.contains(['\x1b', '\u{202e}']), "{line:?}");
        assert_eq!(line.matches("fireclaw-1").count(), 1, "{line:?}");
        for part in ["INFO", "ready", "agent=\"worker\"", "sandbox=\"fireclaw-1\"", "message_id=7"]
        {
            assert!(line.contains(part), "{part}: {line:?}");
        }
    }

    #[test]
    fn a_line_for_programs_is_one_object_with_the_spans_fields() {
        let lines = logged(|write| json(move |line: &str| write(line)));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["message"], "ready\n\x1b[2J\u{202e}");
        assert_eq!(value["message_id"], 7);
        assert_eq!(value["spans"][0]["agent"], "worker");
        assert_eq!(value["spans"][0]["sandbox"], "fireclaw-1");
    }
}
