//! The guest's only resolver: answers for the names that the policy allows, and opens what
//! it answered.

use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use fireclaw_policy::{HOST_NAME, Network};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::access::{Access, locked};

/// The most questions at a time.
const QUESTIONS: usize = 64;
/// The most records of one answer.
const RECORDS: usize = 64;
/// The longest question, in bytes: one name and what EDNS adds.
const LONGEST: usize = 1024;
/// The longest answer over UDP that passes everywhere (DNS Flag Day 2020), in bytes.
const UDP_ANSWER: u16 = 1232;
/// For how long a connection with questions may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest life that a guest is told, in seconds: not longer than the address is open.
const LONGEST_LIFE: u32 = 3600;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What counts without one, or if it names no server (resolv.conf(5)).
const DEFAULT_CONF: &str = "nameserver 127.0.0.1\n";
/// The most that is read of one, in bytes. Three servers count, so more is a mistake.
const LONGEST_CONF: u64 = 64 * 1024;
/// The most of its odd lines that are told.
const MAX_ODD: usize = 8;

/// The guest's resolver.
pub(super) struct Resolver {
    shared: Arc<Access>,
    /// The only one who is answered.
    guest: Ipv4Addr,
    /// The host's, and when its configuration was written.
    host: Mutex<Option<(SystemTime, Arc<TokioResolver>)>>,
    permits: Arc<Semaphore>,
}

impl Resolver {
    pub fn new(shared: Arc<Access>, guest: Ipv4Addr) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(QUESTIONS));
        Arc::new(Self { shared, guest, host: Mutex::default(), permits })
    }

    /// Answers over UDP for as long as the gateway lives.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = [0; LONGEST];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            if from.ip() != self.guest {
                continue;
            }
            // Too many at a time are lost, as on any network; the guest asks again.
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { continue };
            let question = buffer.get(..length).unwrap_or_default().to_vec();
            let (resolver, socket) = (Arc::clone(&self), Arc::clone(&socket));
            tokio::spawn(async move {
                if let Some(answer) = resolver.answer(&question, true).await {
                    let _ = socket.send_to(&answer, from).await;
                }
                drop(permit);
            });
        }
    }

    /// Answers over TCP for as long as the gateway lives.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            if from.ip() != self.guest {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { continue };
            let resolver = Arc::clone(&self);
            tokio::spawn(async move {
                // A client that does not follow the protocol is left.
                let _ = resolver.stream(stream).await;
                drop(permit);
            });
        }
    }

    /// Each message has its length before it (RFC 7766).
    async fn stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = timeout(SILENCE, stream.read_u16()).await??.into();
            if length > LONGEST {
                return Ok(());
            }
            let mut question = vec![0; length];
            timeout(SILENCE, stream.read_exact(&mut question)).await??;
            let Some(answer) = self.answer(&question, false).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            timeout(SILENCE, stream.write_u16(length)).await??;
            timeout(SILENCE, stream.write_all(&answer)).await??;
        }
    }

    /// The answer to a question; none to what is no question.
    async fn answer(&self, question: &[u8], udp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        let [query] = &question.queries[..] else { return None };
        answer.add_query(query.clone());
        if question.metadata.op_code != OpCode::Query || query.query_class() != DNSClass::IN {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer.to_vec().ok();
        }
        match self.records(query.name(), query.query_type()).await {
            Ok(records) => {
                answer.add_answers(records.into_iter().take(RECORDS));
            }
            Err(code) => answer.metadata.response_code = code,
        }
        let room = question.edns.as_ref().map_or(512, |edns| edns.max_payload().min(UDP_ANSWER));
        if udp { fitting(answer, room.max(512).into()) } else { answer.to_vec().ok() }
    }

    async fn records(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, ResponseCode> {
        let text = name.to_ascii().to_ascii_lowercase();
        let text = text.strip_suffix('.').unwrap_or(&text);
        if text == HOST_NAME && self.shared.has_services() {
            let gateway = RData::A(A(self.shared.config.gateway()));
            let record = Record::from_rdata(name.clone(), 60, gateway);
            return Ok(if kind == RecordType::A { vec![record] } else { Vec::new() });
        }
        let policy = self.shared.policy();
        let full = policy.network == Network::Full;
        // A dot within a label is written with a backslash: such a name is below another domain
        // than it seems.
        let plain = !text.contains('\\');
        if text == HOST_NAME || !(full || plain && policy.rules.resolves(text)) {
            self.shared.deny(&shown(text), None, "the name is not allowed");
            // What is refused otherwise is asked again elsewhere; this ends at once.
            return Err(ResponseCode::NXDomain);
        }
        match kind {
            RecordType::A => self.addresses(name, text).await,
            // There is no IPv6, and these can carry addresses of it and keys to hide names.
            RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB | RecordType::ANY => {
                Ok(Vec::new())
            }
            _ if full => self.others(text, kind).await,
            // A name is allowed for its addresses.
            _ => Ok(Vec::new()),
        }
    }

    /// The addresses of an allowed name, which this opens.
    async fn addresses(&self, name: &Name, text: &str) -> Result<Vec<Record>, ResponseCode> {
        let Some(lookup) = self.ask(text, RecordType::A).await? else { return Ok(Vec::new()) };
        let now = Instant::now();
        let life = lookup.valid_until().saturating_duration_since(now);
        let seconds = u32::try_from(life.as_secs()).unwrap_or(u32::MAX).min(LONGEST_LIFE);
        let mut addresses: Vec<Ipv4Addr> =
            lookup.answers().iter().filter_map(|record| address(&record.data)).collect();
        addresses.truncate(RECORDS);
        addresses.retain(|address| {
            // A name on the internet must not lead into the house.
            let open = self.shared.open_address(*address);
            if let Err(reason) = open {
                self.shared.deny(&format!("{} ({address})", shown(text)), None, reason);
            }
            open.is_ok()
        });
        for address in &addresses {
            self.shared.pins().pin(text, *address, life, now);
        }
        let record = |address| Record::from_rdata(name.clone(), seconds, RData::A(A(address)));
        Ok(addresses.into_iter().map(record).collect())
    }

    /// Records of other kinds, as they are.
    async fn others(&self, text: &str, kind: RecordType) -> Result<Vec<Record>, ResponseCode> {
        let Some(lookup) = self.ask(text, kind).await? else { return Ok(Vec::new()) };
        let closed = |record: &&Record| {
            address(&record.data).is_none_or(|address| self.shared.open_address(address).is_ok())
        };
        Ok(lookup.answers().iter().filter(closed).cloned().collect())
    }

    /// Asks the host's resolver; none if the name has no such record.
    async fn ask(&self, text: &str, kind: RecordType) -> Result<Option<Lookup>, ResponseCode> {
        let resolver = self.host().ok_or(ResponseCode::ServFail)?;
        let name = Name::from_ascii(format!("{text}.")).map_err(|_| ResponseCode::FormErr)?;
        match resolver.lookup(name, kind).await {
            Ok(lookup) => Ok(Some(lookup)),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NoError => Ok(None),
                code => Err(code),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(code),
            Err(_) => Err(ResponseCode::ServFail),
        }
    }

    /// The host's resolver as its configuration has it now.
    fn host(&self) -> Option<Arc<TokioResolver>> {
        // Without the file there is still the default.
        let written = std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified());
        let written = written.unwrap_or(SystemTime::UNIX_EPOCH);
        let mut host = locked(&self.host);
        if let Some((at, resolver)) = &*host
            && *at == written
        {
            return Some(Arc::clone(resolver));
        }
        let (resolver, odd) = configured(Path::new(RESOLV_CONF));
        // Once for each time that the file was written.
        for line in odd {
            self.shared.deny(&line, None, "a line of resolv.conf that is not understood");
        }
        let resolver = Arc::new(resolver?);
        *host = Some((written, Arc::clone(&resolver)));
        Some(resolver)
    }
}

/// What a resolv.conf says (resolv.conf(5)), and the lines of it that were left out.
fn configured(path: &Path) -> (Option<TokioResolver>, Vec<String>) {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_CONF).read_to_end(&mut bytes));
    let (lines, odd) = match read {
        Ok(_) => understood(&String::from_utf8_lossy(&bytes)),
        Err(_) => (DEFAULT_CONF.to_owned(), Vec::new()),
    };
    let (config, mut options) = match parsed(&lines) {
        Some(parsed) => parsed,
        None => return (None, odd),
    };
    // As in the C library. No time or no attempt would be no answer, and a question that
    // waits for ever takes the place of others.
    options.timeout = options.timeout.clamp(Duration::from_secs(1), Duration::from_secs(30));
    options.attempts = options.attempts.clamp(1, 5);
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 256;
    let provider = TokioRuntimeProvider::default();
    let builder = TokioResolver::builder_with_config(config, provider).with_options(options);
    (builder.build().ok(), odd)
}

/// What of a resolv.conf is of use here and understood, and the lines that are not. One odd
/// line must not cost all names, as it costs the C library none.
fn understood(text: &str) -> (String, Vec<String>) {
    let (mut lines, mut odd) = (String::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            // Names are asked for whole, so the search list is of no use.
            None | Some("search" | "domain" | "sortlist") => {}
            Some(word) if word.starts_with(['#', ';']) => {}
            Some("nameserver") if parsed(line).is_some() => {
                lines.push_str(line);
                lines.push('\n');
            }
            Some("options") => {
                // Each by itself: the other ones still count.
                for option in words {
                    let option = format!("options {option}\n");
                    if parsed(&format!("{DEFAULT_CONF}{option}")).is_some() {
                        lines.push_str(&option);
                    } else {
                        odd.push(shown_line(&option));
                    }
                }
            }
            Some(_) => odd.push(shown_line(line)),
        }
    }
    if !lines.contains("nameserver") {
        lines.push_str(DEFAULT_CONF);
    }
    odd.truncate(MAX_ODD);
    (lines, odd)
}

/// A line of a file as people are shown it.
fn shown_line(line: &str) -> String {
    line.trim().split_ascii_whitespace().map(shown).collect::<Vec<_>>().join(" ")
}

/// What some lines say; none without a name server, or if one is not understood.
fn parsed(lines: &str) -> Option<(ResolverConfig, ResolverOpts)> {
    hickory_resolver::system_conf::parse_resolv_conf(lines).ok()
}

/// An answer of at most `room` bytes. If not all records fit, it is marked as cut, and has
/// those that do: many programs take them and never ask over TCP.
fn fitting(mut answer: Message, room: usize) -> Option<Vec<u8>> {
    let whole = answer.to_vec().ok()?;
    if whole.len() <= room {
        return Some(whole);
    }
    answer.metadata.truncation = true;
    let records = std::mem::take(&mut answer.answers);
    let mut best = answer.to_vec().ok()?;
    // By halves: a record can have 64 KiB, and each look writes the whole answer.
    let (mut fit, mut too_many) = (0, records.len());
    while too_many - fit > 1 {
        let count = (fit + too_many) / 2;
        answer.answers = records.iter().take(count).cloned().collect();
        let bytes = answer.to_vec().ok()?;
        if bytes.len() <= room {
            (fit, best) = (count, bytes);
        } else {
            too_many = count;
        }
    }
    Some(best)
}

fn address(data: &RData) -> Option<Ipv4Addr> {
    match data {
        RData::A(A(address)) => Some(*address),
        _ => None,
    }
}

/// A name as people are shown it.
fn shown(name: &str) -> String {
    name.chars().take(255).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fireclaw_policy::HostConfig;
    use hickory_resolver::proto::op::Query;
    use proptest::prelude::*;

    const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);

    fn resolver(policy: &str) -> Arc<Resolver> {
        let config = HostConfig::parse("[[service]]\nname = \"a\"\naddress = \"127.0.0.1:1\"");
        Resolver::new(Arc::new(Access::new(config.unwrap(), policy.parse().unwrap())), GUEST)
    }

    fn answer(resolver: &Resolver, question: &[u8]) -> Option<Message> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answer = runtime.unwrap().block_on(resolver.answer(question, true));
        answer.map(|answer| Message::from_vec(&answer).unwrap())
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    #[test]
    fn only_what_is_allowed_exists() {
        let resolver = resolver("local");
        let ask = |name: &str, kind| answer(&resolver, &question(name, kind)).unwrap();
        let refused = ask("a.org.", RecordType::A);
        assert_eq!(refused.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(refused.metadata.id, 7);
        let host = ask("Host.Fireclaw.Internal.", RecordType::A);
        assert_eq!(address(&host.answers[0].data), Some(Ipv4Addr::new(172, 16, 0, 1)));
        let host = ask("host.fireclaw.internal.", RecordType::AAAA);
        assert_eq!(host.metadata.response_code, ResponseCode::NoError);
        assert!(host.answers.is_empty());
        assert_eq!(resolver.shared.denials().total(), 1);
    }

    #[test]
    fn a_dot_within_a_label_is_no_dot() {
        let resolver = resolver("allow:*.b.org");
        let name = Name::from_labels([&b"x.b"[..], b"org"]).unwrap();
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name, RecordType::A));
        let answer = answer(&resolver, &message.to_vec().unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(resolver.shared.denials().last()[0].what, r"x\.b.org");
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let resolver = resolver("local");
        let mut bytes = question("a.org.", RecordType::A);
        assert!(answer(&resolver, &bytes).is_some());
        // As an answer.
        bytes[2] |= 0x80;
        assert!(answer(&resolver, &bytes).is_none());
        assert!(answer(&resolver, b"").is_none());
    }

    /// An answer with this many addresses.
    fn long(records: u8) -> Message {
        let mut answer = Message::response(7, OpCode::Query);
        let name = Name::from_ascii("big.example.").unwrap();
        answer.add_query(Query::query(name.clone(), RecordType::A));
        let record =
            |n| Record::from_rdata(name.clone(), 300, RData::A(A(Ipv4Addr::new(203, 0, 114, n))));
        answer.add_answers((0..records).map(record));
        answer
    }

    #[test]
    fn a_cut_answer_has_the_records_that_fit() {
        let whole = long(64);
        let mut before = 0;
        for room in 512..=usize::from(UDP_ANSWER) {
            let bytes = fitting(whole.clone(), room).unwrap();
            assert!(bytes.len() <= room);
            let cut = Message::from_vec(&bytes).unwrap();
            let count = cut.answers.len();
            assert_eq!(cut.metadata.truncation, count < 64);
            assert_eq!(cut.answers[..], whole.answers[..count]);
            // One more would not have fitted.
            if count < 64 {
                let more = long(u8::try_from(count).unwrap() + 1).to_vec().unwrap();
                assert!(more.len() > room, "{count} in {room}");
            }
            assert!(count >= before && count > 0);
            before = count;
        }
        let all = fitting(long(10), 512).unwrap();
        let all = Message::from_vec(&all).unwrap();
        assert_eq!((all.answers.len(), all.metadata.truncation), (10, false));
        // Not even one.
        let none = Message::from_vec(&fitting(long(64), 40).unwrap()).unwrap();
        assert!(none.answers.is_empty() && none.metadata.truncation);
    }

    #[test]
    fn one_odd_line_costs_no_names() {
        let server = "nameserver 203.0.113.53\n";
        for odd in [
            "search bad..name",
            "search -x.example",
            "domain a..b",
            "nameserver",
            "nameserver here",
            "nameserver 1.2.3.4.5",
            "options ndots",
            "options ndots:x",
            "options timeout:-1",
            "nonsense",
            "\u{fffd}\0",
            &"x".repeat(5000),
        ] {
            for text in [format!("{odd}\n{server}"), format!("{server}{odd}\n")] {
                let (lines, told) = understood(&text);
                let (config, _) = parsed(&lines).unwrap();
                let servers: Vec<_> = config.name_servers().iter().map(|it| it.ip).collect();
                assert_eq!(servers, ["203.0.113.53".parse::<std::net::IpAddr>().unwrap()], "{odd}");
                let tells = !odd.starts_with("search") && !odd.starts_with("domain");
                assert!(told.len() <= usize::from(tells), "{told:?}");
            }
        }
        assert_eq!(understood("nameserver here\n").1, ["nameserver here"]);
        assert_eq!(understood("nonsense\n").1, ["nonsense"]);
        for empty in ["", "# nothing\n", "options edns0\n"] {
            assert!(understood(empty).0.ends_with(DEFAULT_CONF) && understood(empty).1.is_empty());
        }
        assert_eq!(understood(&"odd\n".repeat(100)).1.len(), MAX_ODD);
    }

    #[test]
    fn no_time_and_no_attempts_are_some() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("resolv.conf");
        for (text, servers) in [
            (
                "nameserver 203.0.113.53
options timeout:0 attempts:0
",
                1,
            ),
            (
                "options timeout:4294967295
",
                1,
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let resolver = configured(&path).0.unwrap();
            let options = resolver.options();
            assert!((1..=30).contains(&options.timeout.as_secs()), "{text}");
            assert!((1..=5).contains(&options.attempts), "{text}");
            assert_eq!(understood(text).0.matches("nameserver").count(), servers);
        }
        assert!(configured(&home.path().join("absent")).0.is_some());
    }

    proptest! {
        #[test]
        fn any_resolv_conf_gives_a_resolver(text in "((nameserver|options|search|#|x)[ -~]{0,30}\n?|.|\n){0,12}") {
            prop_assert!(parsed(&understood(&text).0).is_some());
        }

        #[test]
        fn any_bytes_are_answered_or_not(
            bytes: Vec<u8>,
            at in 0usize..64,
            byte: u8,
            whole: bool,
        ) {
            // Nothing, or a question with one byte changed.
            let mut bytes = if whole { bytes } else { question("a.b.org.", RecordType::TXT) };
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            answer(&resolver("local"), &bytes);
        }
    }
}
