//! `overseer.toml` in the data directory: what `fireclaw overseer` does where the command line
//! and the environment say nothing.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use fireclaw_config::values::{duration, flag, line, list, number};
use fireclaw_config::{Fields, Format, Mistake, Node, Notes, Read, Value, one_of, quoted};
use fireclaw_host::PathError;
use fireclaw_llm::Limits;

use super::{Options, owners};
use crate::error::{CliError, Kind, Result};

/// The file's name in the data directory.
pub const FILE: &str = "overseer.toml";

/// The longest text of a field, in characters.
const LONGEST: usize = 500;
const MOST_OWNERS: usize = 100;

/// What has an option too, by the option's name; then what has not.
const FIELDS: [&str; 11] = [
    "nick",
    "channel",
    "agents_channel",
    "owners",
    "vmm",
    "log_format",
    "approval_time",
    "max_hops",
    "loop_pause",
    "irc",
    "model",
];
const IRC: [&str; 5] = ["server", "port", "tls", "tls_ca", "account"];
const MODEL: [&str; 8] = [
    "server",
    "ca",
    "local",
    "slots",
    "queue_per_agent",
    "reply_tokens",
    "context_tokens",
    "request_time",
];

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Options, as words of a command line.
    words: Vec<OsString>,
    /// Through how many agents a message may go.
    pub max_hops: u32,
    /// How long two agents that went in circles do not hear each other.
    pub loop_pause: Duration,
    /// What agents may ask of the model server.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            words: Vec::new(),
            max_hops: 4,
            loop_pause: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

impl Settings {
    /// Those of a file; the usual ones if it is not there.
    pub fn of(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(text) => Self::read(path, &text).map_err(|mistakes| {
                let many = if mistakes.len() == 1 { "a mistake" } else { "mistakes" };
                let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
                CliError::usage(format!("{} has {many}:\n{first}", path.display()))
                    .hint("`fireclaw overseer check` explains each one")
            }),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(PathError::at("read", path)(e).into()),
        }
    }

    /// Reads a file, or finds all mistakes in it.
    pub fn read(path: &Path, text: &[u8]) -> std::result::Result<Self, Vec<Mistake>> {
        let Read { value, .. } =
            fireclaw_config::read(&path.display().to_string(), text, Format::Toml, take);
        value
    }

    /// The options of a command line, with those of the file where it says nothing.
    pub fn under(&self, given: &[OsString]) -> Result<Options> {
        let is_owner = |word: &&OsString| word.to_string_lossy().starts_with("--owner=");
        // One list or the other: who is named on the command line is who is meant.
        let replaced = given.iter().any(|word| is_owner(&word));
        let own = self.words.iter().filter(|word| !(replaced && is_owner(word)));
        let command = Options::augment_args(clap::Command::new("overseer"))
            .no_binary_name(true)
            .args_override_self(true);
        let matches = command.try_get_matches_from(own.chain(given)).map_err(|e| {
            let text = e.render().to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            CliError::usage(format!("{FILE}: {text}"))
                .hint("its fields have the same names as the options")
        })?;
        Options::from_arg_matches(&matches).map_err(|e| CliError::new(Kind::Usage, e.to_string()))
    }

    /// Whether the options can be meant together, as far as that shows without a server.
    pub fn check(&self) -> Result<()> {
        owners(&self.under(&[])?).map(|_| ())
    }
}

/// The options that the command line or the environment gives, as words.
pub fn given(matches: &ArgMatches) -> Vec<OsString> {
    let options = Options::augment_args(clap::Command::new("overseer"));
    let mut words = Vec::new();
    for option in options.get_arguments() {
        let (id, Some(name)) = (option.get_id().as_str(), option.get_long()) else { continue };
        let source = matches.value_source(id);
        if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        if !option.get_action().takes_values() {
            words.push(format!("--{name}").into());
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            words.push(word(name, value));
        }
    }
    words
}

fn word(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut word = OsString::from(format!("--{name}="));
    word.push(value);
    word
}

/// Makes settings of the fields.
fn take(fields: Fields, notes: &mut Notes<'_>) -> Settings {
    let mut settings = Settings::default();
    let mut top = Table { fields, words: &mut settings.words, notes };
    top.text("nick", "nick");
    top.text("channel", "channel");
    top.text("agents_channel", "agents-channel");
    top.choice("vmm", "vmm", &["auto", "firecracker", "qemu"]);
    top.choice("log_format", "log-format", &["human", "json"]);
    top.owners();
    let day = Duration::from_secs(24 * 3600);
    if let Some(time) = top.time("approval_time", Duration::from_secs(1)..=day) {
        top.words.push(word("approval-time", time.as_secs().to_string()));
    }
    if let Some(hops) = top.number("max_hops", 0..=100) {
        settings.max_hops = hops;
    }
    if let Some(pause) = top.time("loop_pause", Duration::from_secs(1)..=day) {
        settings.loop_pause = pause;
    }
    let (irc, model) = (top.table("irc"), top.table("model"));
    top.fields.finish("the overseer", &FIELDS, top.notes);
    if let Some(fields) = irc {
        let mut irc = Table { fields, words: &mut settings.words, notes };
        irc.text("server", "server");
        irc.text("tls_ca", "tls-ca");
        irc.text("account", "account");
        if let Some(port) = irc.number("port", 0..=u32::from(u16::MAX)) {
            irc.words.push(word("port", port.to_string()));
        }
        irc.flag("tls", "tls");
        irc.secret("password", "FIRECLAW_IRC_PASSWORD");
        irc.fields.finish("`irc`", &IRC, irc.notes);
    }
    if let Some(fields) = model {
        let limits = &mut settings.limits;
        let mut model = Table { fields, words: &mut settings.words, notes };
        model.text("server", "model-server");
        model.text("ca", "model-ca");
        model.flag("local", "local-model");
        model.secret("key", "FIRECLAW_MODEL_KEY");
        if let Some(slots) = model.number("slots", 1..=64) {
            limits.slots = slots as usize;
        }
        if let Some(most) = model.number("queue_per_agent", 1..=1000) {
            limits.max_queue_per_agent = most as usize;
        }
        if let Some(most) = model.number("reply_tokens", 16..=100_000) {
            limits.max_tokens_per_reply = most;
        }
        if let Some(most) = model.number("context_tokens", 1024..=10_000_000) {
            limits.max_context_tokens = most;
        }
        if let Some(most) = model.time("request_time", Duration::from_secs(5)..=day) {
            limits.max_seconds_per_request = most.as_secs();
        }
        model.fields.finish("`model`", &MODEL, model.notes);
    }
    settings
}

/// A table that is being read.
struct Table<'a, 'n> {
    fields: Fields,
    words: &'a mut Vec<OsString>,
    notes: &'a mut Notes<'n>,
}

impl Table<'_, '_> {
    fn text(&mut self, field: &str, option: &str) {
        if let Some(node) = self.fields.take(field, &[], self.notes)
            && let Some(text) = line(field, &node, LONGEST, self.notes)
        {
            self.words.push(word(option, text));
        }
    }

    fn choice(&mut self, field: &str, option: &str, known: &[&str]) {
        let Some(node) = self.fields.take(field, &[], self.notes) else { return };
        let Some(text) = line(field, &node, LONGEST, self.notes) else { return };
        if known.contains(&&*text) {
            self.words.push(word(option, text));
        } else {
            let message = format!("`{field}` is \"{}\"", quoted(&text));
            self.notes.hinted(&node.span, message, format!("it can be {}", one_of(known)));
        }
    }

    fn flag(&mut self, field: &str, option: &str) {
        if let Some(node) = self.fields.take(field, &[], self.notes)
            && flag(field, &node, self.notes) == Some(true)
        {
            self.words.push(format!("--{option}").into());
        }
    }

    fn number(&mut self, field: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let node = self.fields.take(field, &[], self.notes)?;
        number(field, &node, &range, self.notes)
    }

    fn time(&mut self, field: &str, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let node = self.fields.take(field, &[], self.notes)?;
        duration(field, &node, &range, self.notes)
    }

    fn owners(&mut self) {
        let Some(node) = self.fields.take("owners", &[], self.notes) else { return };
        for who in list("owners", &node, MOST_OWNERS, self.notes).unwrap_or_default() {
            if let Some(who) = line("owners", who, LONGEST, self.notes) {
                self.words.push(word("owner", who));
            }
        }
    }

    fn table(&mut self, field: &str) -> Option<Fields> {
        let Node { value, span } = self.fields.take(field, &[], self.notes)?;
        match value {
            Value::Table(fields) => Some(Fields::new(Format::Toml, fields)),
            _ => {
                let message = format!("`{field}` must be a table");
                self.notes.hinted(&span, message, format!("[{field}] begins one"));
                None
            }
        }
    }

    /// What does not belong into a file that others may read.
    fn secret(&mut self, field: &str, variable: &str) {
        if self.fields.take(field, &[], self.notes).is_some() {
            let message = format!("`{field}` is a secret, which is not read from here");
            // Its line would be shown with the mistake.
            self.notes.hinted(&(0..1), message, format!("remove it, and set {variable}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::commands::Cli;

    const ALL: &str = r##"
nick = "boss"
channel = "#c"
agents_channel = "#a"
owners = ["ann", "*!*@example.org"]
vmm = "qemu"
log_format = "json"
approval_time = "5m"
max_hops = 2
loop_pause = 30

[irc]
server = "irc.example.org"
port = 6697
tls = true
tls_ca = "/ca.pem"
account = "bot"

[model]
server = "http://m:1"
ca = "/m.pem"
local = true
slots = 2
queue_per_agent = 3
reply_tokens = 400
context_tokens = 4096
request_time = "2m"
"##;

    fn read(text: &str) -> std::result::Result<Settings, Vec<Mistake>> {
        Settings::read(Path::new("overseer.toml"), text.as_bytes())
    }

    /// The options of `fireclaw overseer` with these words, over the file.
    fn options(file: &str, words: &str) -> Options {
        let line = ["fireclaw", "overseer"].into_iter().chain(words.split_whitespace());
        let matches = Cli::command().get_matches_from(line);
        let given = given(matches.subcommand_matches("overseer").unwrap());
        read(file).unwrap().under(&given).unwrap()
    }

    #[test]
    fn every_field_counts() {
        let settings = read(ALL).unwrap();
        assert_eq!((settings.max_hops, settings.loop_pause), (2, Duration::from_secs(30)));
        let limits = &settings.limits;
        assert_eq!((limits.slots, limits.max_queue_per_agent), (2, 3));
        assert_eq!((limits.max_tokens_per_reply, limits.max_context_tokens), (400, 4096));
        assert_eq!(limits.max_seconds_per_request, 120);
        let words: Vec<_> = options(ALL, "").words();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        for word in [
            "--nick=boss",
            "--channel=#c",
            "--agents-channel=#a",
            "--owner=ann",
            "--owner=*!*@example.org",
            "--vmm=qemu",
            "--log-format=json",
            "--approval-time=300",
            "--server=irc.example.org",
            "--port=6697",
            "--tls",
            "--tls-ca=/ca.pem",
            "--account=bot",
            "--model-server=http://m:1",
            "--model-ca=/m.pem",
            "--local-model",
        ] {
            assert!(words.contains(&word), "{word}: {words:?}");
        }
        settings_are_whole(&words);
    }

    /// No option is without a field, or a new one would be forgotten.
    fn settings_are_whole(words: &[&str]) {
        for option in Options::augment_args(clap::Command::new("x")).get_arguments() {
            let name = format!("--{}", option.get_long().unwrap());
            assert!(words.iter().any(|word| word.split('=').next() == Some(&name)), "{name}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let over = options(ALL, "--nick other --owner eve --port 6667 --vmm auto");
        assert_eq!((over.nick.as_str(), over.port), ("other", 6667));
        assert_eq!(over.owner, ["eve"]);
        assert_eq!(over.vmm, crate::machine::Vmm::Auto);
        assert_eq!(over.server.as_deref(), Some("irc.example.org"));
        assert_eq!(options("", "--nick x"), options("nick = 'y'", "--nick x"));
    }

    #[test]
    fn every_mistake_is_explained() {
        let mistakes = read(
            "nik = \"boss\"\nvmm = \"vbox\"\nmax_hops = \"four\"\napproval_time = \"soon\"\n\
             irc = 3\n[model]\nkey = \"secret\"\nslots = 0\nserver = 7\n",
        )
        .unwrap_err();
        let text: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        let text = text.join("\n");
        assert_eq!(mistakes.len(), 8, "{text}");
        for part in [
            "no field `nik`",
            "did you mean `nick`?",
            "`vmm` is \"vbox\"",
            "`firecracker`",
            "`max_hops` must be a number",
            "which is no time",
            "[irc] begins one",
            "`key` is a secret",
            "FIRECLAW_MODEL_KEY",
            "`slots` must be from 1 to 64",
            "`server` must be text",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("secret\""), "{text}");
    }

    #[test]
    fn what_cannot_be_meant_together_is_told() {
        let alone = read("owners = [\"ann\"]").unwrap().check().unwrap_err();
        assert!(alone.message().contains("a private server cannot tell"), "{alone:?}");
        let tls = read("[irc]\ntls = true").unwrap().check().unwrap_err();
        assert!(tls.message().starts_with("overseer.toml: "), "{tls:?}");
    }
}
