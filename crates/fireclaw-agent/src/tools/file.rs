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
