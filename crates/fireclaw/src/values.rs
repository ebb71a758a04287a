//! Values of options, with errors that say what would be right.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use fireclaw_host::PathError;
use fireclaw_policy::{InvalidNetwork, Network};
use fireclaw_protocol::id::{Id, check_user};
use fireclaw_protocol::message::EnvVar;
use fireclaw_registry::Reference;
use fireclaw_vm::MachineSpec;

use crate::error::{CliError, Kind, Result};

type Parsed<T> = std::result::Result<T, String>;

/// Seconds, with a fraction if need be, or with a unit: `90`, `1.5`, `10m`, `1h 30m`.
pub fn timeout(text: &str) -> Parsed<Duration> {
    match humantime::parse_duration(text) {
        Ok(time) => fireclaw_sandbox::seconds(&time.as_secs_f64().to_string()),
        Err(_) => fireclaw_sandbox::seconds(text),
    }
}

/// How long a program may take to end: 0 for not at all.
pub fn grace(text: &str) -> Parsed<Duration> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { timeout(text) }
}

/// A signal by its name or Linux's number.
pub fn signal(text: &str) -> Parsed<u8> {
    const NAMES: [(&str, u8); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
    ];
    if let Ok(number @ 1..=64) = text.parse() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = NAMES.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| number).ok_or_else(|| "it must be a signal, such as TERM or 15".into())
}

/// The size of a disk, in MiB.
pub fn disk(text: &str) -> Parsed<u64> {
    use fireclaw_daemon::SandboxConfig;
    match size(text)? {
        mib @ SandboxConfig::MIN_DISK_MIB..=SandboxConfig::MAX_DISK_MIB => Ok(mib),
        _ => Err("it must be from 64M to 16T".into()),
    }
}

/// A number of virtual processors.
pub fn cpus(text: &str) -> Parsed<u32> {
    match text.parse() {
        Ok(n @ 1..=MachineSpec::MAX_CPUS) => Ok(n),
        _ => Err(format!("it must be a number from 1 to {}", MachineSpec::MAX_CPUS)),
    }
}

/// An amount of memory, in MiB.
pub fn memory(text: &str) -> Parsed<u64> {
    let mib = size(text)?;
    if mib < MachineSpec::MIN_MEMORY_MIB {
        return Err(format!(
            "{mib} MiB is too little: a guest needs {} MiB",
            MachineSpec::MIN_MEMORY_MIB
        ));
    }
    Ok(mib)
}

/// A size, in MiB.
fn size(text: &str) -> Parsed<u64> {
    let wrong = || "it must be a number of MiB, or a number with M, G or T".to_owned();
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let (digits, factor) = match bare.strip_suffix(['M', 'G', 'T']) {
        Some(digits) if bare.ends_with('M') => (digits, 1),
        Some(digits) if bare.ends_with('G') => (digits, 1024),
        Some(digits) => (digits, 1024 * 1024),
        None => (bare, 1),
    };
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// How many VMs run side by side.
pub fn parallel(text: &str) -> Parsed<usize> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("it must be a number from 1 to 1024".into()),
    }
}

/// A network policy.
pub fn network(text: &str) -> Parsed<Network> {
    text.parse().map_err(|e: InvalidNetwork| match e.hint() {
        Some(hint) => format!("{e}; {hint}"),
        None => e.to_string(),
    })
}

/// Number of VMs to keep ready in a pool.
pub fn pool_size(text: &str) -> Parsed<usize> {
    match text.parse() {
        Ok(n @ 1..=256) => Ok(n),
        _ => Err("it must be a number from 1 to 256".into()),
    }
}

/// A user and a group by number.
pub fn owner(text: &str) -> Parsed<(u32, u32)> {
    let wrong = || "it must be UID:GID, both numbers and not 0".to_owned();
    let (uid, gid) = text.split_once(':').ok_or_else(wrong)?;
    match (uid.parse().map(Id::get), gid.parse().map(Id::get)) {
        (Ok(uid @ 1..), Ok(gid @ 1..)) => Ok((uid, gid)),
        _ => Err(wrong()),
    }
}

/// Refuses a user of the guest that cannot be, before anything is started.
pub fn guest_user(user: &str) -> Result<()> {
    check_user(user).map_err(|e| {
        CliError::new(Kind::Usage, format!("user {user}: {e}"))
            .hint("give a user name or a valid user number: --user 1000")
    })
}

/// `NAME=VALUE`, any bytes; `NAME` alone has the value that it has on the host.
pub fn variable() -> ValueParser {
    OsStringValueParser::new().try_map(|text| variable_of(text.as_bytes())).into()
}

fn variable_of(bytes: &[u8]) -> std::result::Result<EnvVar, &'static str> {
    match bytes.iter().position(|byte| *byte == b'=') {
        None if !bytes.is_empty() => {
            let value = std::env::var_os(OsStr::from_bytes(bytes));
            let value = value.ok_or("it must be NAME=VALUE; the host has no such variable")?;
            let value = value.as_bytes().to_vec().into();
            Ok(EnvVar { name: bytes.to_vec().into(), value })
        }
        None | Some(0) => Err("it must be NAME=VALUE"),
        Some(at) => {
            Ok(EnvVar { name: bytes[..at].to_vec().into(), value: bytes[at + 1..].to_vec().into() })
        }
    }
}

/// The variables of a file, a line each, as Docker reads it: what begins with `#` is a comment,
/// blanks before a line are not of it, and quotes are of the value.
pub fn variables_of(file: &Path) -> Result<Vec<EnvVar>> {
    let text = std::fs::read(file).map_err(PathError::at("read", file))?;
    let mut all = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        all.push(variable_of(line).map_err(|problem| {
            CliError::usage(format!("{}, line {}: {problem}", file.display(), number + 1))
        })?);
    }
    Ok(all)
}

/// Whether somebody who knows Docker means an image: it has a tag, a digest or a registry, or
/// its name is one of those that everybody knows.
pub fn looks_like_an_image(word: &OsStr) -> bool {
    const KNOWN: [&str; 10] = [
        "alpine", "busybox", "debian", "fedora", "golang", "nginx", "node", "python", "rust",
        "ubuntu",
    ];
    let word = word.to_string_lossy();
    Reference::parse(&word).is_ok_and(|image| {
        word.contains([':', '@'])
            || image.registry() != "docker.io"
            || KNOWN.contains(&word.as_ref())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_units_and_keep_their_bounds() {
        let seconds = |text| timeout(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("1.5"), Ok(1.5));
        assert_eq!(seconds("10s"), Ok(10.0));
        assert_eq!(seconds("1h 30m"), Ok(5400.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        for wrong in ["", "0", "0s", "-1", "s", "10 parsecs", "1000000y"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variable_by_its_name_has_the_hosts_value() {
        let parse = |text: &str| {
            let command = clap::Command::new("x").arg(clap::Arg::new("e").value_parser(variable()));
            let found = command.try_get_matches_from(["x", text]).ok()?;
            found.get_one::<EnvVar>("e").cloned()
        };
        let path = parse("PATH").unwrap();
        assert_eq!(path.value[..], *std::env::var_os("PATH").unwrap().as_bytes());
        assert_eq!(parse("A=").unwrap().value.len(), 0);
        for wrong in ["", "=a", "FIRECLAW_NO_SUCH_VARIABLE"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn variables_of_a_file_are_read_as_docker_does() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# a comment\n\n A=1 2\r\nB=\"x\"\nC=\nPATH\n").unwrap();
        let found = variables_of(file.path()).unwrap();
        let found: Vec<_> = found.iter().map(|it| (&it.name[..], &it.value[..])).collect();
        assert_eq!(found[..3], [(&b"A"[..], &b"1 2"[..]), (b"B", b"\"x\""), (b"C", b"")]);
        assert_eq!(found[3].1, std::env::var_os("PATH").unwrap().as_bytes());
        std::fs::write(&file, "A=1\n=x\n").unwrap();
        let error = variables_of(file.path()).unwrap_err().text();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn memory_has_units_and_bounds() {
        assert_eq!(memory("512"), Ok(512));
        assert_eq!(memory("2G"), Ok(2048));
        assert_eq!(memory("1gib"), Ok(1024));
        assert_eq!(memory("10T"), Ok(10 << 20));
        for wrong in
            ["0", "1", "1M", "", "G", "-5", "1.5G", "99999999999999999999", "18446744073709551615T"]
        {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_jail_is_never_roots() {
        assert_eq!(owner("60001:60002"), Ok((60001, 60002)));
        for wrong in ["0:0", "1", "1:", "a:b", "-1:1", "1:2:3", "4294967295:1", "1:4294967295"] {
            assert!(owner(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("TERM", 15), ("sighup", 1), ("9", 9), ("64", 64)] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for wrong in ["", "0", "65", "SIG", "-9", "NONE"] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpus_are_bounded() {
        assert_eq!(cpus("2"), Ok(2));
        for wrong in ["0", "999", "-1", "two"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }
}
