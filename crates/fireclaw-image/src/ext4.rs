//! Root file system archives (tar) as read-only ext4 images, made in process.
//!
//! No mount, no loop device, no root. Device nodes are left out: the guest has
//! its own `/dev`.

use std::io::{ErrorKind, Read};
use std::path::{Component, Path};

use arcbox_ext4::constants::{file_mode, make_mode};
use arcbox_ext4::error::FormatError;
use arcbox_ext4::{FileTimestamps, FormatOptions, Formatter};
use tar::EntryType;

use crate::{Error, Result, kernel, space};

/// The size that the image starts with: one whole block group, because the
/// formatter counts in groups. It grows as needed and is sparse.
const FIRST_SIZE: u64 = 128 * 1024 * 1024;

/// Writes a file system with the content of a tar archive, which may be
/// compressed with gzip, xz or zstd.
pub fn from_tar(tar: impl Read, origin: &str, image: &Path) -> Result<()> {
    let failed = |e| write_error(e, image, origin);
    let plain = kernel::plain(tar).map_err(|e| failed(e.into()))?;
    let options = FormatOptions::new(FIRST_SIZE).label("fireclaw");
    let mut formatter = Formatter::with_options(image, options).map_err(failed)?;
    let files = unpack(&mut formatter, plain).map_err(failed)?;
    formatter.close().map_err(failed)?;
    if files == 0 {
        let problem = "there are no files in it".to_owned();
        return Err(Error::BadArchive { origin: origin.to_owned(), problem });
    }
    // A file in the host's page cache that others map must not change any more.
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(image, read_only).map_err(Error::file("write", image))
}

/// Copies every file, also sparse ones, which the formatter's own reader of
/// archives would leave out without a word. Returns how many there were.
fn unpack(formatter: &mut Formatter, tar: impl Read) -> std::result::Result<u64, FormatError> {
    let mut files = 0;
    let mut hard_links = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = in_image(&entry.path()?);
        let target = entry.link_name()?.map(|target| target.into_owned());
        let header = entry.header();
        let kind = header.entry_type();
        // An empty field is how some archivers write zero.
        let mode = (header.mode().unwrap_or(0o644) & 0o7777) as u16;
        let uid = Some(header.uid().unwrap_or(0) as u32);
        let gid = Some(header.gid().unwrap_or(0) as u32);
        let times = Some(times(header.mtime().unwrap_or(0) as u32));
        let create = |kind, link: Option<&str>, data: Option<&mut dyn Read>| {
            formatter.create(&path, make_mode(kind, mode), link, times, data, uid, gid, None)
        };
        match (kind, target) {
            (EntryType::Directory, _) => create(file_mode::S_IFDIR, None, None)?,
            (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                create(file_mode::S_IFREG, None, Some(&mut entry))?;
            }
            (EntryType::Symlink, Some(to)) => {
                create(file_mode::S_IFLNK, Some(&to.to_string_lossy()), None)?;
            }
            (EntryType::Link, Some(to)) => hard_links.push((path, in_image(&to))),
            // The guest has its own /dev; sockets and pipes mean nothing in an image.
            (EntryType::Char | EntryType::Block | EntryType::Fifo, _) => continue,
            (kind, _) => {
                return Err(FormatError::InvalidName(format!("{path} is of kind {kind:?}")));
            }
        }
        files += 1;
    }
    // What they point to may come later in the archive.
    for (path, target) in hard_links {
        formatter.link(&path, &target)?;
    }
    Ok(files)
}

/// A path of the archive as an absolute one of the image, out of which no
/// number of `..` leads.
fn in_image(path: &Path) -> String {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_string_lossy()),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    format!("/{}", names.join("/"))
}

/// Seconds since the Unix epoch for every time of a file.
fn times(seconds: u32) -> FileTimestamps {
    FileTimestamps {
        access_lo: seconds,
        access_hi: 0,
        modification_lo: seconds,
        modification_hi: 0,
        creation_lo: seconds,
        creation_hi: 0,
        now_lo: seconds,
        now_hi: 0,
    }
}

fn write_error(error: FormatError, image: &Path, origin: &str) -> Error {
    match &error {
        FormatError::Io(e) if e.kind() == ErrorKind::StorageFull => space::error(image),
        _ => None,
    }
    .unwrap_or_else(|| Error::BadArchive { origin: origin.to_owned(), problem: error.to_string() })
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
    fn sparse_files_and_hard_links_arrive() {
        let directory = tempfile::tempdir().unwrap();
        let sparse = directory.path().join("sparse");
        let mut file = std::fs::File::create(&sparse).unwrap();
        file.set_len(1 << 20).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(-5)).unwrap();
        std::io::Write::write_all(&mut file, b"bytes").unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(EntryType::Link);
        link.set_mode(0o644);
        link.set_uid(0);
        link.set_gid(0);
        link.set_mtime(0);
        link.set_size(0);
        builder.append_link(&mut link, "./etc/link", "usr/../etc/sparse").unwrap();
        builder.append_path_with_name(&sparse, "etc/sparse").unwrap();
        let image = directory.path().join("image");
        from_tar(&builder.into_inner().unwrap()[..], "test", &image).unwrap();
        let mut reader = arcbox_ext4::Reader::new(&image).unwrap();
        for path in ["/etc/sparse", "/etc/link"] {
            let bytes = reader.read_file(path, 0, None).unwrap();
            assert!(bytes.len() == 1 << 20 && bytes.ends_with(b"\0bytes"), "{path}");
        }
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
