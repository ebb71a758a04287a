//! What people type in the control channel.

use fireclaw_template::nearest;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `!invoke <template> [name]`
    Invoke { template: String, name: Option<String> },
    /// `!destroy <name>`
    Destroy { name: String },
    /// `!list`
    List,
    /// `!status`
    Status,
    /// `!model <name> <model>`
    Model { name: String, model: String },
    /// `!models`
    Models,
    /// `!persona <name> [text]`
    Persona { name: String, text: Option<String> },
    /// `!templates`
    Templates,
    /// `!pause <name>`
    Pause { name: String },
    /// `!resume <name>`
    Resume { name: String },
    /// `!logs <name> [n]`
    Logs { name: String, lines: usize },
    /// `!net <name>`
    Net { name: String },
    /// `!net <name> allow <target>`
    Allow { name: String, target: String },
    /// `!reload [name]`
    Reload { name: Option<String> },
    /// `!questions`
    Questions,
    /// `!ok <number> [letters]`
    Ok { id: u64, digest: Option<String> },
    /// `!no <number> [reason]`
    No { id: u64, reason: String },
    /// `!help [command]`
    Help { command: Option<String> },
}

/// Each command: its name, what follows it, and what it does.
pub const HELP: [(&str, &str, &str); 17] = [
    ("invoke", "<template> [name]", "start an agent"),
    ("destroy", "<name>", "stop an agent and keep its workspace"),
    ("list", "", "list agents"),
    ("status", "", "show the overseer's status"),
    ("model", "<name> <model>", "change an agent's model"),
    ("models", "", "list models"),
    ("persona", "<name> [text]", "show or change an agent's persona"),
    ("templates", "", "list templates"),
    ("pause", "<name>", "pause an agent's VM"),
    ("resume", "<name>", "resume a paused agent, or restart a failed one"),
    ("logs", "<name> [n]", "show the last lines of its log (5)"),
    ("net", "<name> [allow <target>]", "show its egress policy and refusals, or ask for more"),
    (
        "reload",
        "[name]",
        "apply changed templates; with a name, also reset that agent's model and persona",
    ),
    ("questions", "", "list open questions"),
    ("ok", "<number> [letters]", "approve a question"),
    ("no", "<number> [reason]", "refuse a question"),
    ("help", "[command]", "show this help"),
];

/// The most lines of a log that are said in a channel.
const MOST_LOG_LINES: usize = 20;

impl Command {
    /// Whether it only looks: everybody may then, also in private.
    pub fn only_looks(&self) -> bool {
        self.is_harmless() && !matches!(self, Self::Allow { .. })
    }

    /// Whether everybody may.
    pub fn is_harmless(&self) -> bool {
        matches!(
            self,
            Self::List
                | Self::Status
                | Self::Models
                | Self::Templates
                | Self::Questions
                // It only asks; who answers needs the right.
                | Self::Allow { .. }
                | Self::Net { .. }
                | Self::Help { .. }
                | Self::Persona { text: None, .. }
        )
    }
}

/// Reads a line; none if it is no command at all.
///
/// # Errors
/// What is wrong, for who typed it.
pub fn parse(line: &str) -> Option<Result<Command, String>> {
    let rest = line.trim().strip_prefix('!')?;
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    // "!" alone and "!!" are no commands: people shout.
    if !word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    Some(read(&word.to_ascii_lowercase(), rest.trim()))
}

fn read(word: &str, rest: &str) -> Result<Command, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let wrong = || Err(usage(word));
    let owned = |word: &str| word.to_owned();
    let command = match (word, &words[..]) {
        ("invoke", [template]) => Command::Invoke { template: owned(template), name: None },
        ("invoke", [template, name]) => {
            Command::Invoke { template: owned(template), name: Some(owned(name)) }
        }
        ("destroy", [name]) => Command::Destroy { name: owned(name) },
        ("list", []) => Command::List,
        ("status", []) => Command::Status,
        ("model", [name, model]) => Command::Model { name: owned(name), model: owned(model) },
        ("models", []) => Command::Models,
        ("persona", [name]) => Command::Persona { name: owned(name), text: None },
        ("persona", [name, _, ..]) => {
            let text = rest[name.len()..].trim().to_owned();
            Command::Persona { name: owned(name), text: Some(text) }
        }
        ("templates", []) => Command::Templates,
        ("pause", [name]) => Command::Pause { name: owned(name) },
        ("resume", [name]) => Command::Resume { name: owned(name) },
        ("logs", [name]) => Command::Logs { name: owned(name), lines: 5 },
        ("logs", [name, lines]) => match lines.parse() {
            Ok(lines @ 1..=MOST_LOG_LINES) => Command::Logs { name: owned(name), lines },
            _ => return Err(format!("1 to {MOST_LOG_LINES} lines; `fireclaw agent logs` has all")),
        },
        ("net", [name]) => Command::Net { name: owned(name) },
        ("net", [name, "allow", target]) => {
            Command::Allow { name: owned(name), target: owned(target) }
        }
        ("reload", []) => Command::Reload { name: None },
        ("reload", [name]) => Command::Reload { name: Some(owned(name)) },
        ("questions", []) => Command::Questions,
        ("ok", [id, digest @ ..]) if digest.len() < 2 => match number(id) {
            Some(id) => Command::Ok { id, digest: digest.first().map(|word| owned(word)) },
            None => return wrong(),
        },
        ("no", [id, ..]) => match number(id) {
            Some(number) => Command::No { id: number, reason: rest[id.len()..].trim().to_owned() },
            None => return wrong(),
        },
        ("help", []) => Command::Help { command: None },
        ("help", [command]) => {
            Command::Help { command: Some(command.trim_start_matches('!').to_ascii_lowercase()) }
        }
        _ => return wrong(),
    };
    Ok(command)
}

fn number(word: &str) -> Option<u64> {
    word.trim_start_matches('#').parse().ok()
}

/// How a command is used, or that there is none.
pub fn usage(word: &str) -> String {
    match HELP.iter().find(|(name, ..)| *name == word) {
        Some((name, rest, what)) => format!("!{name} {rest} - {what}").replace("  ", " "),
        None => match nearest(word, HELP.iter().map(|(name, ..)| *name)) {
            Some(near) => format!("there is no !{word}; did you mean !{near}?"),
            None => format!("there is no !{word}; !help lists the commands"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(line: &str) -> Command {
        parse(line).unwrap().unwrap()
    }

    #[test]
    fn commands_are_read() {
        assert_eq!(ok("!list"), Command::List);
        assert_eq!(ok(" !LIST "), Command::List);
        let named = Command::Invoke { template: "coder".into(), name: Some("bob".into()) };
        assert_eq!(ok("!invoke coder  bob"), named);
        let text = Command::Persona { name: "bob".into(), text: Some("You  are x.".into()) };
        assert_eq!(ok("!persona bob You  are x."), text);
        assert_eq!(ok("!ok #42"), Command::Ok { id: 42, digest: None });
        assert_eq!(ok("!ok 42 a7f"), Command::Ok { id: 42, digest: Some("a7f".into()) });
        assert_eq!(ok("!reload bob"), Command::Reload { name: Some("bob".into()) });
        assert_eq!(ok("!no 42 not  now"), Command::No { id: 42, reason: "not  now".into() });
        assert_eq!(ok("!logs bob 7"), Command::Logs { name: "bob".into(), lines: 7 });
        assert_eq!(ok("!net bob"), Command::Net { name: "bob".into() });
        let allow = Command::Allow { name: "bob".into(), target: "*.a.example:443".into() };
        assert_eq!(ok("!net bob allow *.a.example:443"), allow);
        assert_eq!(ok("!help !ok"), Command::Help { command: Some("ok".into()) });
        for talk in ["hello", "", "!", "!!", "! list", "!?"] {
            assert_eq!(parse(talk), None, "{talk}");
        }
        for (wrong, said) in [
            ("!invoke", "!invoke <template> [name]"),
            ("!invoke a b c", "!invoke"),
            ("!logs bob 0", "1 to 20"),
            ("!ok x", "!ok <number>"),
            ("!ok 1 a b", "!ok <number> [letters]"),
            ("!invok worker", "did you mean !invoke?"),
            ("!dance", "there is no !dance"),
            ("!list all", "!list - list agents"),
        ] {
            let told = parse(wrong).unwrap().unwrap_err();
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn every_command_has_its_help() {
        for (name, ..) in HELP {
            let words = [
                format!("!{name}"),
                format!("!{name} a"),
                format!("!{name} 1"),
                format!("!{name} a b"),
            ];
            assert!(words.iter().any(|line| parse(line).unwrap().is_ok()), "{name}");
            assert!(usage(name).starts_with(&format!("!{name}")));
        }
    }

    proptest! {
        #[test]
        fn anything_is_read(line in ".{0,200}") {
            let _ = parse(&line);
            let _ = parse(&format!("!{line}"));
        }
    }
}
