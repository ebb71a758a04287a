//! Archives that are strange, cut off or hostile.

use super::*;
use proptest::prelude::*;

fn header(kind: u8, name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn all(bytes: impl Read) -> Outcome<Vec<Member>> {
    let mut archive = Archive::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = archive.next()? {
        members.push(member);
    }
    Ok(members)
}

const END: [u8; 1024] = [0; 1024];

#[test]
fn headers_that_are_no_files_are_not_members() {
    let global = b"52 comment=0123456789012345678901234567890123456789\n";
    let archive = [
        header(b'g', "pax_global_header", global.len() as u64),
        padded(global),
        header(b'V', "label", 0),
        header(b'D', "folder/", 3),
        padded(b"Nx\0"),
        header(b'0', "file", 0),
        END.to_vec(),
    ]
    .concat();
    let members = all(&archive[..]).unwrap();
    let seen: Vec<_> = members.iter().map(|m| (&m.path[..], m.kind)).collect();
    assert_eq!(seen, [(&b"folder/"[..], Kind::Directory), (&b"file"[..], Kind::File)]);
}

#[test]
fn a_cut_archive_is_an_error_at_every_block() {
    let archive =
        [header(b'0', "a", 3), padded(b"abc"), header(b'0', "b", 0), END.to_vec()].concat();
    assert_eq!(all(&archive[..]).unwrap().len(), 2);
    for length in 0..archive.len() - END.len() {
        let error = all(&archive[..length]).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{length}: {error}");
    }
    let twice = [&archive[..], &archive].concat();
    assert!(all(&twice[..]).unwrap_err().to_string().contains("several archives"));
}

#[test]
fn one_that_has_a_digest_may_lack_its_end_but_nothing_before_it() {
    let parts = [header(b'L', "long", 5), padded(b"name\0"), header(b'0', "x", 3), padded(b"abc")];
    let archive = parts.concat();
    let read = |bytes: &[u8]| {
        let mut archive = Archive::vouched_for(bytes);
        let mut members = 0;
        while archive.next()?.is_some() {
            archive.content(|_, _| Ok(()))?;
            members += 1;
        }
        Ok::<_, Problem>(members)
    };
    let unpadded = 3 * BLOCK + 3;
    assert_eq!(read(&archive).unwrap(), 1);
    assert_eq!(read(&archive[..unpadded]).unwrap(), 1);
    assert_eq!(read(b"").unwrap(), 0);
    for length in (1..archive.len()).filter(|length| *length != unpadded) {
        assert!(read(&archive[..length]).is_err(), "{length}");
    }
}

/// Names, headers and sizes that are promised are refused before they are read.
#[test]
fn what_is_too_long_is_refused_before_it_is_read() {
    struct Counted(u64);
    impl Read for Counted {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            into.fill(b'a');
            self.0 += into.len() as u64;
            Ok(into.len())
        }
    }
    for (kind, size) in [(b'L', 2500 << 20), (b'K', 5000), (b'x', 2500 << 20), (b'g', 2 << 20)] {
        let mut endless = Counted(0);
        let start = header(kind, "long", size);
        let error = all((&start[..]).chain(&mut endless)).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
        assert_eq!(endless.0, 0);
    }
    let error = all(&header(b'0', "huge", 300 << 30)[..]).unwrap_err().to_string();
    assert!(error.contains("256 GiB"), "{error}");
}

#[test]
fn extended_headers_do_not_add_up_beyond_the_bound() {
    let one = |kind: u8, n: u32| {
        let value = "v".repeat(900_000);
        let record = format!("{} key{n}={value}\n", 900_000 + 7 + 1 + 5);
        assert_eq!(record.len(), 900_013);
        [header(kind, "g", record.len() as u64), padded(record.as_bytes())].concat()
    };
    for kind in *b"xg" {
        let error = all(&[one(kind, 1), one(kind, 2)].concat()[..]).unwrap_err().to_string();
        assert!(error.contains("extended headers"), "{error}");
    }
}

#[test]
fn strange_members_are_refused_by_name() {
    let numbers = |from: usize, bytes: &[u8]| {
        let mut block = header(b'0', "odd", 0);
        block[from..from + bytes.len()].copy_from_slice(bytes);
        let mut fixed = tar::Header::new_gnu();
        fixed.as_mut_bytes().copy_from_slice(&block);
        fixed.set_cksum();
        fixed.as_bytes().to_vec()
    };
    for (block, word) in [
        (header(b'0', "", 0), "no name"),
        (header(b'M', "odd", 0), "several volumes"),
        (header(b'Z', "odd", 0), "unknown"),
        (header(b'1', "odd", 512), "has content"),
        (header(b'2', "odd", 0), "link to nothing"),
        (numbers(108, b"\x80\0\0\0\xff\xff\xff\xff"), "owner or group"),
        (numbers(116, b"\xff\xff\xff\xff\xff\xff\xff\xff"), "owner or group"),
        (numbers(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "negative"),
        (numbers(100, b"rwxr-xr-"), "mode is no number"),
    ] {
        let error = all(&[block, END.to_vec()].concat()[..]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

proptest! {
    /// Cost: what any bytes make us hold is bounded by their own length.
    #[test]
    fn any_blocks_are_read_or_refused(
        blocks in prop::collection::vec((prop::sample::select(b"0125xgLKSVD7".to_vec()), 0u64..2000, prop::collection::vec(any::<u8>(), 0..1024)), 0..6)
    ) {
        let mut bytes = Vec::new();
        for (kind, size, content) in blocks {
            bytes.extend(header(kind, "n", size));
            bytes.extend(padded(&content));
        }
        bytes.extend(END);
        let mut archive = Archive::new(&bytes[..]);
        while let Ok(Some(member)) = archive.next() {
            let mut end = 0;
            let _ = archive.content(|offset, piece| {
                assert!(offset >= end);
                end = offset + piece.len() as u64;
                assert!(end <= member.size);
                Ok(())
            });
        }
    }
}
