//! A strict reader of tar archives, as a stream, that holds no more than it bounds.
//!
//! Read are the formats of version 7, POSIX (ustar and pax) and GNU with their long names,
//! global headers, sparse files and extended attributes. What an archive may make us hold in
//! memory or read is bounded here; an archive that ends without its end mark, or goes on
//! after it, is refused.

mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::Read;

use header::{BLOCK, Header};
use pax::Records;
use sparse::{Map, Segment};

use crate::plain::fill;
use crate::problem::{Outcome, Problem, bad, shown};

/// The longest path and target of a link: what Linux takes (`PATH_MAX` with its zero).
pub const MAX_PATH: usize = 4095;

/// The largest extended header: a full set of extended attributes and a map of a sparse file
/// with tens of thousands of parts fit in.
const MAX_EXTENSION: usize = 1 << 20;

/// What one archive may hold when it is unpacked, headers and padding included. The largest
/// images with models and tool kits in them have some tens of GiB.
pub const MAX_UNPACKED: u64 = 256 << 30;

/// A moment, since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// What a member of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// A member of an archive.
#[derive(Debug, Clone)]
pub struct Member {
    /// As it stands in the archive: bytes, not empty, without zero bytes.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Where a link goes to.
    pub target: Vec<u8>,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The length of a file, with its holes.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An archive that is being read.
pub struct Archive<R> {
    from: R,
    read: u64,
    global: Records,
    /// What is left of the current member's content and padding.
    left: u64,
    segments: Vec<Segment>,
    buffer: Vec<u8>,
    /// Whether the mark at the end may be missing.
    may_lack_end: bool,
}

impl<R: Read> Archive<R> {
    /// One of which somebody else says whether it is whole, such as a layer with a digest.
    /// Its mark at the end may be missing, and what fills its last block up: umoci writes
    /// neither.
    pub fn vouched_for(from: R) -> Self {
        Self { may_lack_end: true, ..Self::new(from) }
    }

    /// An archive, uncompressed.
    pub fn new(from: R) -> Self {
        const BUFFER: usize = 256 * 1024;
        Self {
            from,
            read: 0,
            global: Records::default(),
            left: 0,
            segments: Vec::new(),
            buffer: vec![0; BUFFER],
            may_lack_end: false,
        }
    }

    /// The next member, or `None` at the end mark, after which the rest of the stream has
    /// been read too.
    pub fn next(&mut self) -> Outcome<Option<Member>> {
        self.skip_content()?;
        let mut local = Records::default();
        let (mut long_path, mut long_target) = (None, None);
        loop {
            let Some(block) = self.block()? else {
                // Not between a member and what stands before it.
                let is_between = local.is_empty() && long_path.is_none() && long_target.is_none();
                if self.may_lack_end && is_between {
                    return Ok(None);
                }
                return bad("it is cut off: the mark at its end is missing");
            };
            let Some(mut header) = Header::parse(&block)? else {
                self.rest_is_empty()?;
                return Ok(None);
            };
            match header.kind {
                b'x' | b'X' | b'g' => {
                    let bytes = self.extension(&header, MAX_EXTENSION)?;
                    let records = if header.kind == b'g' { &mut self.global } else { &mut local };
                    records.add(&bytes)?;
                    // Each may be small and their sum is not.
                    if records.held() > MAX_EXTENSION {
                        return bad(format!(
                            "extended headers in it have more than {MAX_EXTENSION} bytes"
                        ));
                    }
                }
                b'L' => long_path = Some(self.long_name(&header)?),
                b'K' => long_target = Some(self.long_name(&header)?),
                // The label of a volume is no file.
                b'V' => self.skip_stored(header.size)?,
                _ => {
                    if let Some(path) = long_path {
                        header.path = path;
                    }
                    if let Some(target) = long_target {
                        header.link = target;
                    }
                    let records = local.over(&self.global);
                    return self.member(header, &block, &records).map(Some);
                }
            }
        }
    }

    /// Hands the content of the current file to `sink` with the place of each piece, in
    /// order. What is between pieces is a hole.
    pub fn content(&mut self, mut sink: impl FnMut(u64, &[u8]) -> Outcome<()>) -> Outcome<()> {
        for segment in std::mem::take(&mut self.segments) {
            let mut done = 0;
            while done < segment.length {
                let want = usize::try_from(segment.length - done).unwrap_or(usize::MAX);
                let want = want.min(self.buffer.len());
                let mut buffer = std::mem::take(&mut self.buffer);
                let got = self.exactly(&mut buffer[..want]);
                let taken = got.and_then(|()| sink(segment.offset + done, &buffer[..want]));
                self.buffer = buffer;
                taken?;
                done += want as u64;
                self.left -= want as u64;
            }
        }
        Ok(())
    }

    fn member(
        &mut self,
        header: Header,
        block: &[u8; BLOCK],
        records: &Records,
    ) -> Outcome<Member> {
        let sparse_name = records.get("GNU.sparse.name");
        let path = sparse_name.or_else(|| records.get("path")).unwrap_or(&header.path).to_vec();
        let target = records.get("linkpath").unwrap_or(&header.link).to_vec();
        let name = shown(&path);
        if path.is_empty() {
            return bad("a file in it has no name");
        }
        for (what, bytes) in [("name", &path), ("target", &target)] {
            if bytes.len() > MAX_PATH {
                return bad(format!("{name}: its {what} has more than {MAX_PATH} bytes"));
            }
            if bytes.contains(&0) {
                return bad(format!("{name}: its {what} has a zero byte in it"));
            }
        }
        let is_folder_by_name = path.ends_with(b"/");
        let kind = match header.kind {
            b'0' | 0 | b'7' if is_folder_by_name => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'M' | b'N' => {
                return bad(format!("{name}: it is a part of an archive of several volumes"));
            }
            other => {
                return bad(format!(
                    "{name}: its kind is {:?}, which is unknown",
                    char::from(other)
                ));
            }
        };
        let stored = records.number("size")?.unwrap_or(header.size);
        if self.read.saturating_add(stored) > MAX_UNPACKED {
            return bad(too_much());
        }
        self.left = stored.next_multiple_of(BLOCK as u64);
        // Some readers take a length here for content and others do not: one of them is wrong.
        if kind != Kind::File && stored != 0 && header.kind != b'D' {
            return bad(format!("{name}: it is no regular file, and yet has content"));
        }
        if matches!(kind, Kind::HardLink | Kind::SymbolicLink) && target.is_empty() {
            return bad(format!("{name}: it is a link to nothing"));
        }
        let size = match kind {
            Kind::File => self.map(&header, block, records, stored)?,
            _ => 0,
        };
        let mut xattrs: Vec<_> = records.xattrs().collect();
        xattrs.sort();
        xattrs.dedup_by(|later, kept| later.0 == kept.0);
        Ok(Member {
            mode: header.mode,
            uid: owner(&name, records.number("uid")?, header.uid)?,
            gid: owner(&name, records.number("gid")?, header.gid)?,
            mtime: records.time("mtime")?.unwrap_or(Time { seconds: header.mtime, nanoseconds: 0 }),
            device: header.device,
            path,
            kind,
            target,
            size,
            xattrs,
        })
    }

    /// Finds out which parts of a file are stored. Returns its size with holes.
    fn map(
        &mut self,
        header: &Header,
        block: &[u8; BLOCK],
        records: &Records,
        stored: u64,
    ) -> Outcome<u64> {
        let real_size = match records.number("GNU.sparse.realsize")? {
            Some(size) => Some(size),
            None => records.number("GNU.sparse.size")?,
        };
        let (map, size, stored) = if header.kind == b'S' {
            let mut map = Map::default();
            let mut follows = map.add_old_gnu(&block[386..482], block[482])?;
            let Some(size @ 0..) = header::number(&block[483..495]) else {
                return bad(format!("{}: its size is no number", shown(&header.path)));
            };
            while follows {
                let Some(more) = self.block()? else { return bad("it is cut off") };
                follows = map.add_old_gnu(&more[..504], more[504])?;
            }
            (map, size.cast_unsigned(), stored)
        } else if records.get("GNU.sparse.major").is_some_and(|major| major != b"0") {
            if records.get("GNU.sparse.major") != Some(b"1") {
                return bad(format!("{}: its sparse format is unknown", shown(&header.path)));
            }
            let (map, took) = Map::of_content(|| {
                self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(cut)?;
                self.block()?.ok_or_else(cut)
            })?;
            (map, real_size.unwrap_or(0), stored.checked_sub(took).ok_or_else(cut)?)
        } else if let Some(map) = Map::of_pax(records)? {
            (map, real_size.unwrap_or(0), stored)
        } else if let Some(size) = real_size {
            // A sparse file that is one hole.
            (Map::default(), size, stored)
        } else {
            (Map::whole(stored), stored, stored)
        };
        self.segments = map.finish(size, stored)?;
        Ok(size)
    }

    fn extension(&mut self, header: &Header, most: usize) -> Outcome<Vec<u8>> {
        if header.size > most as u64 {
            let size = header.size;
            return bad(format!(
                "an extended header or long name in it has {size} bytes, more than {most}"
            ));
        }
        let mut bytes = vec![0; header.size as usize];
        self.exactly(&mut bytes)?;
        self.left = padding(header.size);
        self.skip_content()?;
        Ok(bytes)
    }

    /// GNU's way to write names that do not fit: the content of a member before.
    fn long_name(&mut self, header: &Header) -> Outcome<Vec<u8>> {
        let mut bytes = self.extension(header, MAX_PATH + 1)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }

    fn skip_stored(&mut self, size: u64) -> Outcome<()> {
        self.left = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(cut)?;
        self.skip_content()
    }

    fn skip_content(&mut self) -> Outcome<()> {
        self.segments.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        while self.left > 0 && result.is_ok() {
            let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            // What fills the last block up after a content that was read may be missing too.
            let may_end = self.may_lack_end && self.left < BLOCK as u64;
            result = match self.some(&mut buffer[..want]) {
                Ok(got) if got == want || (got == 0 && may_end) => Ok(()),
                Ok(_) => Err(cut()),
                Err(e) => Err(e),
            };
            self.left -= want as u64;
        }
        self.buffer = buffer;
        result
    }

    /// The next block, or `None` if the stream ends before it.
    fn block(&mut self) -> Outcome<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.some(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(cut()),
        }
    }

    /// After the end mark there is only padding. Reading it also lets a compression check
    /// its sums.
    fn rest_is_empty(&mut self) -> Outcome<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            match self.some(&mut buffer)? {
                0 => return Ok(()),
                n if buffer[..n].iter().all(|byte| *byte == 0) => {}
                _ => {
                    return bad(
                        "something follows after its end: are these several archives in one?",
                    );
                }
            }
        }
    }

    fn exactly(&mut self, into: &mut [u8]) -> Outcome<()> {
        if self.some(into)? == into.len() { Ok(()) } else { Err(cut()) }
    }

    fn some(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let n = fill(&mut self.from, into).map_err(Problem::Read)?;
        self.read += n as u64;
        if self.read > MAX_UNPACKED { bad(too_much()) } else { Ok(n) }
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn cut() -> Problem {
    Problem::Bad("it is cut off".to_owned())
}

fn too_much() -> String {
    format!("it has more than {} GiB unpacked", MAX_UNPACKED >> 30)
}

/// The kernel takes an id of -1 for "no id".
fn owner(name: &str, long: Option<u64>, short: i64) -> Outcome<u32> {
    let id = long.map_or(Some(short), |id| i64::try_from(id).ok());
    match id.and_then(|id| u32::try_from(id).ok()) {
        Some(id) if id != u32::MAX => Ok(id),
        _ => bad(format!("{name}: its owner or group is not between 0 and {}", u32::MAX - 1)),
    }
}
