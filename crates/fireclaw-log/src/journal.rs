//! systemd's journal, in its native protocol: each field by itself.
//!
//! See "Native Journal Protocol" of systemd. `tracing-journald` sends the same, but waits
//! when the journal does not read; what the journal does not take at once is lost here.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The most of a value that is sent: a message has to fit into one datagram.
const MAX_VALUE: usize = 8 * 1024;

/// The journal as a layer.
pub struct Journal {
    socket: UnixDatagram,
    lost: AtomicU64,
}

impl Journal {
    /// The journal, if it is what standard error is connected to (systemd.exec(5),
    /// `JOURNAL_STREAM`).
    pub fn if_stderr_leads_there() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = rustix::fs::fstat(rustix::stdio::stderr()).ok()?;
        (stream == format!("{}:{}", stat.st_dev, stat.st_ino)).then(|| Self::at(SOCKET))?
    }

    fn at(path: &str) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(path).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, lost: AtomicU64::new(0) })
    }

    fn send(&self, fields: &Fields) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut datagram = Vec::new();
        for (name, value) in &fields.0 {
            put(&mut datagram, name, value);
        }
        if lost > 0 {
            put(&mut datagram, "FIRECLAW_LINES_LOST_BEFORE", &lost.to_string());
        }
        if self.socket.send(&datagram).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

/// A field, its length before its value so that this may be any.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// Fields by the names that the journal takes: capitals, digits and `_`.
#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn add(&mut self, name: &str, mut value: String) {
        let end = value.floor_char_boundary(MAX_VALUE);
        value.truncate(end);
        let name = match name {
            "message" => "MESSAGE".to_owned(),
            other => {
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = other.chars().map(plain).collect();
                format!("FIRECLAW_{}", name.to_ascii_uppercase())
            }
        };
        self.0.insert(name, value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.add(field.name(), text);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.0.extend(of_span.0.clone());
            }
        }
        event.record(&mut fields);
        // syslog(3).
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        fields.0.insert("PRIORITY".into(), priority.into());
        fields.0.insert("SYSLOG_IDENTIFIER".into(), "fireclaw".into());
        fields.0.insert("FIRECLAW_TARGET".into(), event.metadata().target().into());
        self.send(&fields);
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info_span, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Reads a datagram as the journal does.
    fn read(mut datagram: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
            let name = String::from_utf8(datagram[..end].to_vec()).unwrap();
            let (length, rest) = datagram[end + 1..].split_first_chunk().unwrap();
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            assert_eq!(rest[length], b'\n');
            fields.insert(name, String::from_utf8(rest[..length].to_vec()).unwrap());
            datagram = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn fields_arrive_one_by_one_and_nobody_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let server = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(path.to_str().unwrap()).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        let mut buffer = vec![0; 64 * 1024];
        tracing::subscriber::with_default(subscriber, || {
            let span = info_span!("agent", agent = "worker", sandbox = tracing::field::Empty);
            let _entered = span.enter();
            span.record("sandbox", "fireclaw-1");
            warn!(message_id = 7, "two\nlines");
            let size = server.recv(&mut buffer).unwrap();
            let fields = read(&buffer[..size]);
            let of = |name: &str| fields[name].as_str();
            assert_eq!(of("MESSAGE"), "two\nlines");
            assert_eq!(of("PRIORITY"), "4");
            assert_eq!(of("FIRECLAW_AGENT"), "worker");
            assert_eq!(of("FIRECLAW_SANDBOX"), "fireclaw-1");
            assert_eq!(of("FIRECLAW_MESSAGE_ID"), "7");
            // More than any socket holds, and nobody reads.
            for n in 0..10_000 {
                warn!(n, "{}", "x".repeat(1000));
            }
        });
        server.set_nonblocking(true).unwrap();
        let mut read_now = 0;
        while server.recv(&mut buffer).is_ok() {
            read_now += 1;
        }
        assert!(read_now < 10_000, "{read_now}");
    }
}
