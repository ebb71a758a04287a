//! The password of a private server, kept where only its owner can read.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use fireclaw_host::{PathError, Secret};

use crate::{Error, Result};

/// The file's name in the server's directory.
pub const FILE: &str = "password";

/// Random bytes in it, written as twice as many hexadecimal digits: nobody guesses
/// 160 bits, and ngircd compares at most 64 characters.
const RANDOM: usize = 20;

/// The fewest characters of one that somebody put there himself, and the most.
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=64;

/// The password in this directory; a new one if there is none that could be used.
/// Directory (mode 0700) and file (0600) are closed to others, also if they were not.
///
/// # Errors
/// [`Error::File`], and [`Error::System`] without the kernel's randomness.
pub fn own(dir: &Path) -> Result<Secret> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(PathError::at("create", dir))?;
    // Whatever the umask or an earlier version left.
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
        .map_err(PathError::at("close to others", dir))?;
    let path = dir.join(FILE);
    match read(&path) {
        Ok(Some(password)) => return Ok(Secret::new(password)),
        Ok(None) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(PathError::at("read", path)(e).into()),
    }
    let mut bytes = [0; RANDOM];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(RANDOM) => {}
        Ok(_) => {
            let cause = ErrorKind::UnexpectedEof.into();
            return Err(Error::System { what: "no random bytes", cause });
        }
        Err(e) => return Err(Error::system("no random bytes")(e.into())),
    }
    let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = dir.join("password.part");
    let _ = std::fs::remove_file(&part);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let mut file = written.map_err(PathError::at("create", &part))?;
    writeln!(file, "{password}").map_err(PathError::at("write", &part))?;
    file.sync_all().map_err(PathError::at("write", &part))?;
    std::fs::rename(&part, &path).map_err(PathError::at("create", &path))?;
    Ok(Secret::new(password))
}

/// What is in the file; nothing if others could have written or read it, or it is no
/// password that can be used.
fn read(path: &Path) -> std::io::Result<Option<String>> {
    const FLAGS: i32 =
        rustix::fs::OFlags::NOFOLLOW.bits() as i32 | rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(FLAGS).open(path) {
        // A link: whoever made it, it is replaced.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Ok(None);
        }
        opened => opened?,
    };
    let meta = file.metadata()?;
    let mine = meta.uid() == rustix::process::geteuid().as_raw();
    if !meta.is_file() || !mine || meta.mode() & 0o077 != 0 {
        return Ok(None);
    }
    let mut text = String::new();
    let most = u64::try_from(*LENGTHS.end() + 2).unwrap_or(u64::MAX);
    if file.take(most).read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    let word = text.trim_end();
    let usable = LENGTHS.contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
    Ok(usable.then(|| word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn it_is_random_stays_the_same_and_only_its_owner_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let (a, b) = (home.path().join("a/irc"), home.path().join("b"));
        let password = own(&a).unwrap();
        assert!(password.reveal().len() >= 32);
        assert_eq!((mode(&a), mode(&a.join(FILE))), (0o700, 0o600));
        assert!(own(&a).unwrap() == password && own(&b).unwrap() != password);
        // The directory is closed again.
        std::fs::set_permissions(&a, Permissions::from_mode(0o755)).unwrap();
        own(&a).unwrap();
        assert_eq!(mode(&a), 0o700);
    }

    #[test]
    fn what_others_could_know_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(FILE);
        let known = "x".repeat(40);
        let fresh = |why: &str| {
            let password = own(home.path()).unwrap();
            assert!(password.reveal() != known && password.reveal().len() == 40, "{why}");
            assert_eq!(mode(&path), 0o600, "{why}");
        };
        for (text, why) in [("", "empty"), ("short\n", "short"), ("a b".repeat(12).as_str(), "odd")]
        {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            fresh(why);
        }
        std::fs::write(&path, &known).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fresh("readable by all");
        std::fs::remove_file(&path).unwrap();
        let other = home.path().join("other");
        std::fs::write(&other, &known).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        fresh("a link");
        assert_eq!(std::fs::read_to_string(other).unwrap(), known);
        // One's own is kept.
        std::fs::write(&path, format!("{known}\n")).unwrap();
        assert_eq!(own(home.path()).unwrap().reveal(), known);
    }
}
