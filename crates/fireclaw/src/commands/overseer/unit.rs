//! The text of a systemd unit (systemd.service(5), systemd.exec(5), systemd.syntax(7)).

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a unit that we wrote begins with.
pub const MARK: &str = "# Written by `fireclaw overseer install`.";

/// What the unit depends on.
#[derive(Debug)]
pub struct Unit<'a> {
    /// Whether it is for the system's manager, not for that of a user.
    pub is_system: bool,
    /// Whether it needs the network beyond this host.
    pub needs_network: bool,
    /// The `fireclaw` to start.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// The home.
    pub home: &'a Path,
    /// Where secrets are read from, if it is there.
    pub secrets: &'a Path,
}

impl Unit<'_> {
    /// The text.
    pub fn text(&self) -> String {
        let network = match self.is_system && self.needs_network {
            true => "Wants=network-online.target\nAfter=network-online.target\n",
            false => "",
        };
        // The colon has systemd leave dollar signs alone.
        let mut start = format!(":{}", word(self.program.as_os_str()));
        for argument in self.arguments {
            let _ = write!(start, " {}", word(argument));
        }
        let mut home = OsString::from("FIRECLAW_HOME=");
        home.push(self.home);
        let home = word(&home);
        // Taken to the end of the line as it is.
        let secrets = self.secrets.to_string_lossy().replace('%', "%%");
        let wanted_by = if self.is_system { "multi-user.target" } else { "default.target" };
        format!(
            "\
{MARK}
# Changes of your own belong into a drop-in: systemctl edit fireclaw-overseer

[Unit]
Description=Fireclaw's overseer: agents in microVMs
{network}\
# What fails ten times in ten minutes does not go away by itself: a damaged state, a taken port.
StartLimitIntervalSec=10min
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={start}
Environment={home}
# Secrets belong into this file, which only its owner may read.
EnvironmentFile=-{secrets}
# A first start may fetch a model.
TimeoutStartSec=15min
WatchdogSec=2min
Restart=on-failure
RestartSec=2s
# A mistake in the options does not go away by itself.
RestartPreventExitStatus=2
# Machines of agents outlive the overseer, and the next one takes them over.
KillMode=process
OOMPolicy=continue

# What would break KVM, emulation or user namespaces is left out: MemoryDenyWriteExecute,
# PrivateDevices, RestrictNamespaces. So is whatever gives the overseer a view of its own of
# the file system: machines and the next overseer would see different ones.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK

[Install]
WantedBy={wanted_by}
"
        )
    }
}

/// One word of a command line or an assignment, quoted if it must be. Bytes that are not
/// plain text are escaped as C does, and specifiers are taken literally.
fn word(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./:=,+#".contains(b);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '%' => quoted.push_str("%%"),
                c if c.is_control() => quoted.extend(c.to_string().bytes().map(hex)),
                c => quoted.push(c),
            }
        }
        quoted.extend(chunk.invalid().iter().copied().map(hex));
    }
    quoted.push('"');
    quoted
}

fn hex(byte: u8) -> String {
    format!("\\x{byte:02x}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::*;

    /// Reads words as systemd.syntax(7) says that systemd does.
    fn read(line: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        let mut bytes = line.bytes().peekable();
        loop {
            while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
            if bytes.peek().is_none() {
                return words;
            }
            let mut word = Vec::new();
            let mut quote = None;
            while let Some(byte) = bytes.next_if(|b| quote.is_some() || !b.is_ascii_whitespace()) {
                match byte {
                    b'\\' => match bytes.next().unwrap() {
                        b'x' => {
                            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                            let digits = std::str::from_utf8(&digits).unwrap();
                            word.push(u8::from_str_radix(digits, 16).unwrap());
                        }
                        plain @ (b'"' | b'\\') => word.push(plain),
                        other => panic!("\\{other}"),
                    },
                    b'%' => {
                        assert_eq!(bytes.next(), Some(b'%'));
                        word.push(b'%');
                    }
                    b'"' | b'\'' if quote == Some(byte) => quote = None,
                    b'"' | b'\'' if quote.is_none() => quote = Some(byte),
                    byte => word.push(byte),
                }
            }
            assert_eq!(quote, None, "an open quote");
            words.push(word);
        }
    }

    proptest! {
        #[test]
        fn words_arrive_as_they_were(
            words in prop::collection::vec(prop::collection::vec(1..=u8::MAX, 0..20), 0..5)
        ) {
            let quoted: Vec<_> =
                words.iter().map(|bytes| word(&OsString::from_vec(bytes.clone()))).collect();
            let line = quoted.join(" ");
            prop_assert_eq!(read(&line), words);
            prop_assert!(line.chars().all(|c| !c.is_control()), "{}", line);
        }
    }

    #[test]
    fn a_plain_word_stays_as_it_is() {
        let quoted = |text: &str| word(OsStr::new(text));
        assert_eq!(quoted("--port=6667"), "--port=6667");
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted(";"), r#"";""#);
        assert_eq!(quoted("ann!*@%h $HOME"), r#""ann!*@%%h $HOME""#);
        assert_eq!(quoted("a\nb\u{85}"), r#""a\x0ab\xc2\x85""#);
    }
}
