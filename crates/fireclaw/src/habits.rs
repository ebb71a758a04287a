//! Words that people know from Docker, and those that do the same here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What would have worked, for a command line that does not.
pub fn hint(error: &clap::Error) -> Option<&'static str> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => of_command(word(ContextKind::InvalidSubcommand)?),
        ErrorKind::UnknownArgument => of_option(word(ContextKind::InvalidArg)?),
        ErrorKind::ValueValidation => {
            let is_parallel = word(ContextKind::InvalidArg)?.starts_with("--parallel");
            let has_colon = word(ContextKind::InvalidValue)?.contains(':');
            (is_parallel && has_colon).then_some("to forward a port: --publish 8080:80")
        }
        _ => None,
    }
}

fn of_command(word: &str) -> Option<&'static str> {
    Some(match word {
        "ps" | "ls" | "list" | "top" | "stats" => {
            "`fireclaw agent ls` lists agents; a VM of `fireclaw run` ends with its command"
        }
        "exec" | "shell" | "attach" => {
            "fireclaw agent exec NAME -- COMMAND runs a command in an agent's VM"
        }
        "create" | "start" => "fireclaw agent start TEMPLATE; fireclaw run for one command",
        "stop" | "kill" => "fireclaw agent stop NAME",
        "rm" => "fireclaw agent rm NAME, or fireclaw image rm NAME",
        "pause" | "unpause" => "fireclaw agent pause NAME; fireclaw agent resume NAME",
        "pull" => "fireclaw image pull NAME",
        "rmi" => "fireclaw image rm NAME",
        "inspect" => "fireclaw image inspect NAME",
        "load" | "import" => "docker save IMAGE | fireclaw image add NAME -",
        "build" => "build it elsewhere, then: docker save IMAGE | fireclaw image add NAME -",
        "login" | "logout" => "Fireclaw uses the credentials that `docker login` stored",
        "cp" => "tar c FILES | fireclaw run \"tar x && COMMAND\"",
        "prune" => "fireclaw image prune, or fireclaw net prune",
        "network" => "fireclaw net ls; fireclaw run --network POLICY",
        "daemon" | "serve" => "fireclaw overseer",
        "info" => "fireclaw doctor",
        "version" => "fireclaw --version",
        // Of `fireclaw snapshot`.
        "save" => "fireclaw snapshot create --name NAME",
        _ => return None,
    })
}

fn of_option(word: &str) -> Option<&'static str> {
    Some(match word {
        "--rm" => "leave it out: every run is thrown away",
        "-i" | "--interactive" => "leave it out: standard input is forwarded, unless with -n",
        "--tty" => "commands get no terminal yet; standard streams are forwarded",
        "-d" | "--detach" => "a run ends with its command; agents stay: fireclaw agent start",
        "--name" => "a run has no name; agents have: fireclaw agent start TEMPLATE --name NAME",
        "--env-file" => "pass each variable: --env NAME=VALUE, or --env NAME for the host's value",
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
    use clap::Parser;

    use super::*;
    use crate::commands::Cli;

    fn hint_of(line: &str) -> Option<&'static str> {
        hint(&Cli::try_parse_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn who_knows_docker_is_told_the_word_for_it() {
        for word in [
            "ps", "ls", "exec", "shell", "attach", "create", "start", "stop", "kill", "rm",
            "pause", "pull", "rmi", "inspect", "load", "build", "login", "cp", "prune", "network",
            "serve", "info", "version",
        ] {
            assert!(hint_of(&format!("fireclaw {word} x")).is_some(), "{word}");
        }
        assert_eq!(hint_of("fireclaw snapshot save x"), of_command("save"));
        for option in [
            "--rm",
            "-it",
            "-i",
            "--tty",
            "-d",
            "--name x",
            "--env-file f",
            "--volume a:b",
            "--net none",
            "--platform linux/amd64",
            "--privileged",
        ] {
            assert!(hint_of(&format!("fireclaw run {option} true")).is_some(), "{option}");
        }
        assert!(hint_of("fireclaw run -p 8080:80 true").unwrap().contains("--publish"));
        for other in ["fireclaw dance", "fireclaw run --dance", "fireclaw run -p 0 true"] {
            assert_eq!(hint_of(other), None, "{other}");
        }
    }

    #[test]
    fn no_hint_names_a_command_that_is_not_there() {
        for line in
            ["fireclaw agent ls", "fireclaw net ls", "fireclaw image prune", "fireclaw net prune"]
        {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
        for line in [
            "fireclaw agent exec a -- true",
            "fireclaw agent start worker --name a",
            "fireclaw agent stop a",
            "fireclaw agent rm a",
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
