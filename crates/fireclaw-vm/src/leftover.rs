//! Files that killed writers left beside what they were to replace.

use std::fs;
use std::path::Path;

/// Removes `<name>.<pid>.<ending>` below a directory, for each pid that is no process any
/// more. One that was given to another process meanwhile is looked at again next time.
pub fn remove_dead(directory: &Path, ending: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name
            .to_str()
            .and_then(|name| name.strip_suffix(ending)?.strip_suffix('.')?.rsplit_once('.'))
            .and_then(|(_, pid)| pid.parse::<u32>().ok());
        if writer.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_were_writing_goes() {
        let directory = tempfile::tempdir().unwrap();
        let own = std::process::id();
        // Above the highest that Linux gives (proc(5), pid_max).
        let dead = 4_194_305;
        let kept = [
            format!("host.{own}.tmp"),
            "host.json".into(),
            "host.tmp".into(),
            ".tmp".into(),
            format!("host.{dead}.new"),
            format!("host.{dead}.tmp.json"),
        ];
        for name in kept.iter().chain([&format!("host.{dead}.tmp")]) {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_dead(directory.path(), "tmp");
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(left, kept);
    }
}
