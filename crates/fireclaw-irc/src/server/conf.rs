//! ngircd's configuration file; see ngircd.conf(5).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use fireclaw_host::{PathError, Secret};

use super::Options;
use super::process::User;
use crate::{Error, Result};

/// The longest value that ngircd takes, in bytes.
const MAX_VALUE: usize = 120;

/// The longest channel name that ngircd takes, in bytes.
const MAX_CHANNEL: usize = 50;

/// Writes the file and opens it for ngircd, which gets it as an open file: the
/// directory may be closed to the user that it runs as.
pub(super) fn write(path: &Path, options: &Options, port: u16, user: Option<User>) -> Result<File> {
    let text = text(options, port)?;
    // A new file, so that nobody has the old one open, and no link is followed.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(PathError::at("replace", path)(e).into());
        }
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(PathError::at("create", path))?;
    file.write_all(text.as_bytes()).map_err(PathError::at("write", path))?;
    let readable = File::open(path).map_err(PathError::at("open", path))?;
    if let Some(User { uid, gid }) = user {
        fchown(&file, Some(uid), Some(gid)).map_err(PathError::at("give away", path))?;
    }
    Ok(readable)
}

fn text(options: &Options, port: u16) -> Result<String> {
    let Options { password, name, motd, nick_len, channels, .. } = options;
    let password = password.as_ref().map(Secret::reveal);
    for (setting, value) in
        [("name", Some(name.as_str())), ("motd", Some(motd)), ("password", password)]
    {
        let Some(value) = value else { continue };
        if value.is_empty()
            || value.len() > MAX_VALUE
            || value.contains(char::is_control)
            || value.trim() != value
        {
            let reason = format!("it must be one line of 1 to {MAX_VALUE} bytes");
            return Err(Error::Config { setting, reason });
        }
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !name.contains('.') || name.len() > 63 || !name.chars().all(is_name) {
        let reason = "it must be a host name with a dot".to_owned();
        return Err(Error::Config { setting: "name", reason });
    }
    if !(9..=31).contains(nick_len) {
        let reason = "ngircd takes 9 to 31 bytes".to_owned();
        return Err(Error::Config { setting: "nick_len", reason });
    }
    let password = password.map_or(String::new(), |password| format!("Password = {password}\n"));
    // `#` and `;` begin a comment only at the start of a line.
    let mut rooms = String::new();
    for channel in channels {
        if !crate::names::is_channel(channel, "#", MAX_CHANNEL) {
            return Err(Error::name("channel", channel));
        }
        rooms.push_str(&format!("[Channel]\nName = {channel}\nModes = nt\n"));
    }
    Ok(format!(
        "# Written by Fireclaw at each start.\n\
         [Global]\n\
         Name = {name}\n\
         Info = Fireclaw\n\
         AdminInfo1 = Fireclaw\n\
         AdminInfo2 = this machine\n\
         AdminEMail = root@localhost\n\
         MotdPhrase = {motd}\n\
         Listen = 127.0.0.1\n\
         Ports = {port}\n\
         {password}\
         [Limits]\n\
         MaxConnections = 0\n\
         MaxConnectionsIP = 0\n\
         MaxJoins = 0\n\
         MaxListSize = 0\n\
         MaxNickLength = {nick_len}\n\
         MaxPenaltyTime = 0\n\
         PingTimeout = 120\n\
         PongTimeout = 60\n\
         [Options]\n\
         DNS = no\n\
         Ident = no\n\
         PAM = no\n\
         ConnectIPv4 = no\n\
         ConnectIPv6 = no\n\
         AllowRemoteOper = no\n\
         IncludeDir = /nonexistent\n\
         {rooms}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_no_lookups() {
        let text = text(&Options::default(), 6667).unwrap();
        for line in ["Listen = 127.0.0.1", "Ports = 6667", "DNS = no", "Ident = no", "PAM = no"] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(!text.contains("Password"));
        assert!(!text.contains("[Channel]") && !text.contains("[Operator]"));
    }

    #[test]
    fn a_value_cannot_add_a_line() {
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            text(&options, 6667)
        };
        assert!(with(|o| o.motd = "a\n[Operator]\nName = x".into()).is_err());
        assert!(with(|o| o.password = Some(Secret::new("a\rb"))).is_err());
        assert!(with(|o| o.name = "nodot".into()).is_err());
        assert!(with(|o| o.name = "a.b;c".into()).is_err());
        assert!(with(|o| o.nick_len = 99).is_err());
        assert!(with(|o| o.channels = vec!["#a\nModes = o".into()]).is_err());
        assert!(with(|o| o.channels = vec!["a".into()]).is_err());
        assert!(
            with(|o| o.password = Some(Secret::new("s3 cret")))
                .unwrap()
                .contains("\nPassword = s3 cret\n")
        );
    }
}
