//! Words that people know from Docker, and those that do the same here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::values::looks_like_an_image;

/// Takes a command line of `fireclaw run`, `create`, `exec` or `agent exec` as people who know
/// Docker mean it, and leaves all others as they are.
///
/// `-it` is the terminal, although `-t` alone is the time limit, and `-p 8080:80` a published
/// port, although `-p 8` are clones. Of `run`, several words are a program and its arguments,
/// as if `--` stood before them. Options after the first word are the program's if `run` has
/// none of that name, and all of them with an image or a terminal. Of `exec`, all words after
/// the name are.
pub fn understood(words: impl IntoIterator<Item = OsString>, cli: &clap::Command) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let path: &[&str] = match words.get(1..) {
        Some([run, ..]) if run == "run" => &["run"],
        Some([create, ..]) if create == "create" => &["create"],
        Some([exec, ..]) if exec == "exec" => &["exec"],
        Some([agent, exec, ..]) if agent == "agent" && exec == "exec" => &["agent", "exec"],
        _ => return words,
    };
    let command = path.iter().try_fold(cli, |command, word| command.find_subcommand(word));
    let Some(command) = command else { return words };
    let is_run = !path.contains(&"exec");
    let (mut has_name, mut is_docker_s) = (is_run, false);
    let mut at = 1 + path.len();
    while let Some(word) = words.get(at) {
        if word == "--" {
            break;
        }
        let follows = words.get(at + 1).map(|word| word.as_bytes());
        if ["-dit", "-dti", "-itd", "-tid"].iter().any(|all| word == *all) {
            words[at] = "-d".into();
            words.insert(at + 1, "--tty".into());
            is_docker_s = true;
            at += 2;
        } else if word == "-it" || word == "-ti" {
            words[at] = "--tty".into();
            is_docker_s = true;
            at += 1;
        } else if word == "-p" && follows.is_some_and(|value| value.contains(&b':')) {
            words[at] = "--publish".into();
            at += 2;
        } else if let Some(option) = Word::of(command, word) {
            is_docker_s |= option.is_docker_s;
            at += if option.value_follows { 2 } else { 1 };
        } else if !has_name {
            has_name = true;
            at += 1;
        } else {
            let is_image = is_run && !is_docker_s && looks_like_an_image(word);
            if is_image && follows.is_some() {
                // Refused, with a hint that has all of it.
                words.insert(at + 1, "--".into());
            } else if !is_run || is_a_program(command, &words[at..], is_docker_s) {
                words.insert(at, "--".into());
            }
            break;
        }
    }
    words
}

/// What a word is that begins with a hyphen.
struct Word {
    /// The next word is its value.
    value_follows: bool,
    /// The command had it before it took lines of Docker's.
    is_known: bool,
    /// It is one of those with which a line is read as Docker would.
    is_docker_s: bool,
}

impl Word {
    /// None if it is no option.
    fn of(command: &clap::Command, word: &OsStr) -> Option<Self> {
        let word = word.to_string_lossy();
        let word = word.strip_prefix('-').filter(|rest| !rest.is_empty())?;
        let takes_value = |arg: &clap::Arg| arg.get_action().takes_values();
        if let Some(long) = word.strip_prefix('-') {
            let name = long.split('=').next().unwrap_or_default();
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name));
            return Some(Self {
                is_known: arg.is_some() && name != "tty" && name != "interactive",
                value_follows: !long.contains('=') && arg.is_some_and(takes_value),
                is_docker_s: name == "image" || name == "tty",
            });
        }
        // Letters without values may stand together; one with a value ends them.
        let of = |letter| command.get_arguments().find(|arg| arg.get_short() == Some(letter));
        let with_value =
            word.char_indices().find(|(_, letter)| of(*letter).is_some_and(takes_value));
        let first = word.chars().next().unwrap_or_default();
        Some(Self {
            is_known: first != 'i' && of(first).is_some(),
            value_follows: with_value
                .is_some_and(|(at, letter)| at + letter.len_utf8() == word.len()),
            is_docker_s: false,
        })
    }
}

/// Whether these words are a program and its arguments, not a shell line and options after it.
fn is_a_program(command: &clap::Command, words: &[OsString], is_docker_s: bool) -> bool {
    let [program, next, ..] = words else { return false };
    let is_line = program.as_bytes().iter().any(u8::is_ascii_whitespace);
    let is_option = next != "--" && Word::of(command, next).is_some_and(|word| word.is_known);
    !is_line && next != "--" && (is_docker_s || !is_option)
}

/// What would have worked, for a command line that does not.
pub fn hint(error: &clap::Error) -> Option<&'static str> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => of_command(word(ContextKind::InvalidSubcommand)?),
        ErrorKind::UnknownArgument => of_option(word(ContextKind::InvalidArg)?),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            of_value(word(ContextKind::InvalidArg)?, word(ContextKind::InvalidValue)?)
        }
        _ => None,
    }
}

fn of_value(option: &str, value: &str) -> Option<&'static str> {
    let is_number = value.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    if option.starts_with("--timeout") && !is_number {
        return Some("-t is the time limit; a terminal is -it, as one word before the command");
    }
    let is_parallel = option.starts_with("--parallel");
    (is_parallel && value.contains(':')).then_some("to publish a port: -p 8080:80, with a space")
}

fn of_command(word: &str) -> Option<&'static str> {
    Some(match word {
        "top" | "stats" => "fireclaw exec NAME top -bn1",
        "pause" | "unpause" => "fireclaw agent pause NAME; fireclaw agent resume NAME",
        "pull" => "fireclaw image pull NAME",
        "rmi" => "fireclaw image rm NAME",
        "load" | "import" => "docker save IMAGE | fireclaw image add NAME -",
        "build" => "build it elsewhere, then: docker save IMAGE | fireclaw image add NAME -",
        "login" | "logout" => "Fireclaw uses the credentials that `docker login` stored",
        "cp" => "tar c FILES | fireclaw exec NAME tar x -C FOLDER",
        "commit" | "export" => "fireclaw exec NAME tar c -C / FOLDER > FILE",
        "prune" => "fireclaw image prune, or fireclaw net prune",
        "network" => "fireclaw net ls; fireclaw run --network POLICY",
        "serve" => "fireclaw daemon, or fireclaw overseer",
        "info" => "fireclaw doctor",
        "version" => "fireclaw --version",
        // Of `fireclaw snapshot`.
        "save" => "fireclaw snapshot create --name NAME",
        _ => return None,
    })
}

fn of_option(word: &str) -> Option<&'static str> {
    Some(match word {
        "-d" | "--detach" => "leave it out and put & behind the line",
        "--volume" | "--mount" => {
            "folders are not mounted; pass files on standard input: tar c DIR | fireclaw run …"
        }
        "--net" => "--network none, local, full, or allow:NAME,…",
        "--platform" => "leave it out: VMs are linux/amd64",
        "--privileged" | "--cap-add" => "leave it out: the command has a kernel of its own",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::commands::Cli;

    fn hint_of(line: &str) -> Option<&'static str> {
        hint(&Cli::try_parse_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn who_knows_docker_is_told_the_word_for_it() {
        for word in [
            "top", "stats", "pause", "pull", "rmi", "load", "build", "login", "cp", "commit",
            "export", "prune", "network", "serve", "info", "version",
        ] {
            assert!(hint_of(&format!("fireclaw {word} x")).is_some(), "{word}");
        }
        assert_eq!(hint_of("fireclaw snapshot save x"), of_command("save"));
        for option in ["--volume a:b", "--net none", "--platform linux/amd64", "--privileged"] {
            assert!(hint_of(&format!("fireclaw run {option} true")).is_some(), "{option}");
        }
        assert!(hint_of("fireclaw exec -d x true").is_some());
        assert!(hint_of("fireclaw run -p8080:80 true").unwrap().contains("-p 8080:80"));
        assert!(hint_of("fireclaw run -i -t bash").unwrap().contains("-it"));
        assert!(hint_of("fireclaw run true -it").unwrap().contains("-it"));
        for other in [
            "fireclaw run -t 0 true",
            "fireclaw dance",
            "fireclaw run --dance",
            "fireclaw run -p 0 true",
        ] {
            assert_eq!(hint_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_line_of_run_is_read_as_docker_would() {
        for (line, meant) in [
            ("run -it bash", "run --tty bash"),
            ("run -ti --image a bash -l", "run --tty --image a -- bash -l"),
            ("run -t 5 bash", "run -t 5 bash"),
            ("run -p 8080:80 -p 8 id", "run --publish 8080:80 -p 8 id"),
            ("run echo a b", "run -- echo a b"),
            ("run --image=a ls -v", "run --image=a -- ls -v"),
            ("run -vt 5 --image a cat /x", "run -vt 5 --image a -- cat /x"),
            ("run -vt5 ls /x", "run -vt5 -- ls /x"),
            ("run -e A=b -w /x -u 1:2 ls /x", "run -e A=b -w /x -u 1:2 -- ls /x"),
            ("run ls -l", "run -- ls -l"),
            ("run python3 -c x", "run -- python3 -c x"),
            ("run bash -i", "run -- bash -i"),
            // As ever: options after the line.
            ("run ls -n", "run ls -n"),
            ("run ls --memory 1G", "run ls --memory 1G"),
            ("run ls -v", "run ls -v"),
            ("run --image a ls", "run --image a ls"),
            ("run -- ls -it", "run -- ls -it"),
            ("run --image a -- ls -it", "run --image a -- ls -it"),
            // Refused with a hint.
            ("run alpine ls", "run alpine -- ls"),
            ("run python:3 python3 -c x", "run python:3 -- python3 -c x"),
            ("run -dit --name a --image b bash", "run -d --tty --name a --image b bash"),
            ("run -d --image b ls -l", "run -d --image b -- ls -l"),
            ("create --name a --image b ls -l", "create --name a --image b -- ls -l"),
            ("exec -it a bash -l", "exec --tty a -- bash -l"),
            ("exec -u root a ls -a", "exec -u root a -- ls -a"),
            ("agent exec -it a bash -l", "agent exec --tty a -- bash -l"),
            ("agent exec a -u root -- ls", "agent exec a -u root -- ls"),
            ("agent exec -u root a ls", "agent exec -u root a -- ls"),
            ("agent ls -it", "agent ls -it"),
            ("image ls", "image ls"),
        ] {
            let words = format!("fireclaw {line}");
            let understood = understood(words.split(' ').map(OsString::from), &Cli::command());
            let understood: Vec<_> = understood.iter().map(|w| w.to_str().unwrap()).collect();
            assert_eq!(understood.join(" "), format!("fireclaw {meant}"));
        }
        let line = ["fireclaw", "run", "--image", "a", "ls | cat", "-v"].map(OsString::from);
        assert_eq!(understood(line.clone(), &Cli::command()), line);
    }

    #[test]
    fn no_hint_names_a_command_that_is_not_there() {
        for line in [
            "fireclaw daemon status",
            "fireclaw net ls",
            "fireclaw image prune",
            "fireclaw net prune",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
        for line in [
            "fireclaw exec a -- tar x",
            "fireclaw agent pause a",
            "fireclaw agent resume a",
            "fireclaw image rm a",
            "fireclaw image pull a",
            "fireclaw image inspect a",
            "fireclaw snapshot create --name a",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
    }
}
