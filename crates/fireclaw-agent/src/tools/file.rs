//! Files that the model reads and writes: any that the user may.

use std::path::Path;

use crate::files;

/// The most of a file that the model gets, in bytes.
const MAX_READ: usize = 16 * 1024;

/// The longest content of a file, in bytes.
const MAX_WRITTEN: usize = 128 * 1024;

pub fn read(workspace: &Path, path: &str) -> Result<String, String> {
    let start = files::read(&workspace.join(path), MAX_READ)
        .map_err(|e| format!("{path} cannot be read: {e}."))?;
    Ok(match start.more {
        None if start.text.is_empty() => "(the file is empty)".to_owned(),
        None => start.text,
        Some(size) => format!(
            "{}\n[... the file has {size} bytes; these are the first {MAX_READ} ...]",
            start.text
        ),
    })
}

pub fn write(workspace: &Path, path: &str, content: &str) -> Result<String, String> {
    if content.len() > MAX_WRITTEN {
        return Err(format!("The content has more than {MAX_WRITTEN} bytes; nothing was written."));
    }
    files::write(&workspace.join(path), content.as_bytes())
        .map_err(|e| format!("{path} cannot be written: {e}."))?;
    Ok(format!("Wrote {} bytes to {path}.", content.len()))
}

/// The command that runs a script: with the program that its name or its first line asks
/// for. None if neither does; what is no script is not run as one.
pub fn command_for(path: &str, content: &str) -> Option<String> {
    let first = content.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim);
    let first = first.filter(|first| first.starts_with('/'));
    // Small models write first lines that name nothing; the name of the file knows better.
    let program = match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("py") => "python3",
        Some("js") => "node",
        Some("pl") => "perl",
        Some("sh") => first.unwrap_or("sh"),
        _ => first?,
    };
    // Not an option, whatever its name begins with.
    let path = if path.starts_with('/') { path.to_owned() } else { format!("./{path}") };
    Some(format!("{program} '{}'", path.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_run_by_its_program() {
        for (path, content, command) in [
            ("a.py", "print(1)", Some("python3 './a.py'")),
            ("a.py", "#!/bin/python\nprint(1)", Some("python3 './a.py'")),
            ("a.sh", "#!/bin/bash\necho", Some("/bin/bash './a.sh'")),
            ("a", "#! /usr/bin/env python3\n", Some("/usr/bin/env python3 './a'")),
            ("-x.sh", "echo", Some("sh './-x.sh'")),
            ("/tmp/it's.sh", "#!", Some(r"sh '/tmp/it'\''s.sh'")),
            ("list.txt", "rm -r x", None),
            ("list", "#! rm", None),
        ] {
            assert_eq!(command_for(path, content).as_deref(), command, "{path}");
        }
    }
}
