//! What can go wrong between an archive and an image, in words of the archive.

use std::io;

/// A fault of an archive, or of the file that the image is written to.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The archive cannot be read, or is not what its compression promises.
    #[error("{}", read_words(.0))]
    Read(io::Error),
    /// The image cannot be written.
    #[error("{0}")]
    Write(io::Error),
    /// What was read is wrong or beyond a bound. What comes from the archive is escaped.
    #[error("{0}")]
    Bad(String),
    /// Everything lies in one folder.
    #[error("it is no root file system: all of it is below {0}/")]
    Below(String),
    /// One layer of an image, with marks for what it removes.
    #[error("it is one layer of an image, not a whole one: {0} marks a file that is removed")]
    Layer(String),
    /// Several images, of which none or an unknown one was named.
    #[error("{}", tags_words(.wanted.as_deref(), .known))]
    Tag {
        /// The tag that was asked for.
        wanted: Option<String>,
        /// The tags that there are, escaped.
        known: Vec<String>,
    },
}

/// The outcome of a step between archive and image.
pub type Outcome<T> = Result<T, Problem>;

/// A [`Problem::Bad`] as a result.
pub fn bad<T>(problem: impl Into<String>) -> Outcome<T> {
    Err(Problem::Bad(problem.into()))
}

/// Bytes of an archive as a message shows them: escaped, and not longer than a line.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 100;
    let cut = &bytes[..bytes.len().min(MOST)];
    let text: String = String::from_utf8_lossy(cut).escape_debug().collect();
    if cut.len() < bytes.len() { format!("{text}…") } else { text }
}

fn read_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
        _ => error.to_string(),
    }
}

fn tags_words(wanted: Option<&str>, known: &[String]) -> String {
    match wanted {
        Some(wanted) => format!("there is no image with the tag {wanted:?} in it"),
        None => format!("there are {} images in it", known.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_archive_cannot_reach_the_terminal_raw() {
        let text = shown(b"a\x1b[31m\n\xff\xe2\x80\xaeb");
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
        assert!(shown(&[b'a'; 5000]).len() < 110);
    }
}
