//! Root file system archives (tar) as read-only ext4 images, made in process.
//!
//! No mount, no loop device, no root. Device nodes are left out: the guest has
//! its own `/dev`.

use std::io::{ErrorKind, Read};
use std::path::Path;

use arcbox_ext4::error::FormatError;
use arcbox_ext4::{FormatOptions, Formatter};

use crate::{Error, Result, kernel, setup};

/// The size that the image starts with: one whole block group, because the
/// formatter counts in groups. It grows as needed and is sparse.
const FIRST_SIZE: u64 = 128 * 1024 * 1024;

/// Writes a file system with the content of a tar archive, which may be
/// compressed with gzip, xz or zstd.
pub fn from_tar(tar: impl Read, origin: &str, image: &Path) -> Result<()> {
    let bad = |problem: String| Error::BadArchive { origin: origin.to_owned(), problem };
    let plain = kernel::plain(tar).map_err(|e| bad(e.to_string()))?;
    let mut counted = Counted { from: plain, bytes: 0 };
    let options = FormatOptions::new(FIRST_SIZE).label("fireclaw");
    let mut formatter =
        Formatter::with_options(image, options).map_err(|e| write_error(e, image, origin))?;
    formatter.unpack_tar(&mut counted).map_err(|e| write_error(e, image, origin))?;
    let empty = formatter.list_dir("/").iter().all(|name| name == "lost+found");
    formatter.close().map_err(|e| write_error(e, image, origin))?;
    if empty {
        return Err(bad(format!("there are no files in its {} bytes", counted.bytes)));
    }
    // A file in the host's page cache that others map must not change any more.
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(image, read_only).map_err(Error::file("write", image))
}

fn write_error(error: FormatError, image: &Path, origin: &str) -> Error {
    match &error {
        FormatError::Io(e) if e.kind() == ErrorKind::StorageFull => setup::space_error(image),
        _ => None,
    }
    .unwrap_or_else(|| Error::BadArchive { origin: origin.to_owned(), problem: error.to_string() })
}

struct Counted<R> {
    from: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn e2fsck_finds_nothing_to_mend() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let big = vec![7; 3_000_000];
        from_tar(&tar(&[("bin/sh", &big), ("etc/x", b"y")])[..], "test", &image).unwrap();
        let check = std::process::Command::new("e2fsck").arg("-fn").arg(&image).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }

    #[test]
    fn an_empty_or_broken_archive_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let broken = [&b""[..], b"not a tar at all, but long enough".repeat(40).as_slice()]
            .map(|bytes| from_tar(bytes, "test", &image));
        for result in broken {
            assert!(matches!(result, Err(Error::BadArchive { .. })), "{result:?}");
        }
    }
}
