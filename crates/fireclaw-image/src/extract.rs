//! Archives into a tree and blocks.

use std::io::Read;

use crate::archive::{Archive, Kind as Member, Member as Entry};
use crate::ext4::{Blocks, Writer, device_fits, keeps_xattr};
use crate::problem::{Outcome, Problem, bad, shown};
use crate::tree::{Kind, Meta, Tree};

/// Members of all archives of one image: a quarter of a GiB of inodes. The largest images
/// have some hundred thousand files.
const MAX_MEMBERS: u64 = 1_000_000;

/// What stands before the name of a file that a layer removes, and the name that removes
/// everything (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Further files of aufs, which are nobody's.
const AUFS: &[u8] = b".wh..wh.";

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A whole tree, as `tar` writes and reads it.
    Whole,
    /// A layer over what is there.
    Layer,
}

/// Where archives are extracted to.
pub struct Extraction<'a> {
    pub tree: &'a mut Tree,
    pub blocks: &'a mut Blocks,
    members: u64,
}

/// A hard link to something that has not come yet.
struct Pending {
    path: Vec<u8>,
    target: Vec<u8>,
}

impl<'a> Extraction<'a> {
    /// Into this tree, with contents in these blocks.
    pub fn new(tree: &'a mut Tree, blocks: &'a mut Blocks) -> Self {
        Self { tree, blocks, members: 0 }
    }

    /// Extracts one uncompressed archive, and reads all of it. Returns how many members
    /// there were.
    pub fn archive(&mut self, from: impl Read, role: Role) -> Outcome<u64> {
        if role == Role::Layer {
            self.tree.begin_layer();
        }
        let before = self.members;
        let mut archive = match role {
            Role::Whole => Archive::new(from),
            // It has a digest.
            Role::Layer => Archive::vouched_for(from),
        };
        let mut pending = Vec::new();
        while let Some(member) = archive.next()? {
            self.members += 1;
            if self.members > MAX_MEMBERS {
                return bad(format!("it has more than {MAX_MEMBERS} files"));
            }
            self.member(&mut archive, member, role, &mut pending)?;
        }
        self.link_pending(pending)?;
        Ok(self.members - before)
    }

    fn member<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        member: Entry,
        role: Role,
        pending: &mut Vec<Pending>,
    ) -> Outcome<()> {
        let path = shown(&member.path);
        let (parent, name) = self.tree.place(&member.path)?;
        let meta = meta(&member);
        let Some(name) = name else {
            if member.kind != Member::Directory {
                return bad(format!("{path}: it stands for a folder and is none"));
            }
            self.tree.set_meta(parent, meta);
            return Ok(());
        };
        if name.starts_with(WHITEOUT) {
            match role {
                Role::Whole => return Err(Problem::Layer(path)),
                Role::Layer if name == OPAQUE => self.tree.remove_all_older(parent),
                Role::Layer if name.starts_with(AUFS) => {}
                Role::Layer => self.tree.remove_older(parent, &name[WHITEOUT.len()..]),
            }
            return Ok(());
        }
        let kind = match member.kind {
            Member::Directory => {
                // `tar` keeps a link to a folder, such as /bin on most systems; a layer
                // that has a folder there replaces it.
                if role == Role::Whole
                    && let Some(there) = self.tree.child(parent, &name)
                    && self.tree.directory_behind(parent, there)?.is_some()
                {
                    return Ok(());
                }
                return self.tree.put_directory(parent, &name, meta).map(drop);
            }
            Member::HardLink => {
                match self.tree.find(&member.target)? {
                    Some(target) => self.tree.link(parent, &name, target)?,
                    None => {
                        let Entry { path, target, .. } = member;
                        self.tree.hold(path.len() + target.len())?;
                        self.tree.remove(parent, &name);
                        pending.push(Pending { path, target });
                    }
                }
                return Ok(());
            }
            Member::File => {
                let mut writer = Writer::new(member.size)?;
                archive.content(|offset, bytes| writer.write(self.blocks, offset, bytes))?;
                let (size, extents) = writer.finish(self.blocks)?;
                Kind::File { size, extents }
            }
            Member::SymbolicLink => Kind::Link(member.target.into()),
            Member::Character | Member::Block => {
                let (major, minor) = member.device;
                if !device_fits(major, minor) {
                    return bad(format!("{path}: no device has the number {major}:{minor}"));
                }
                match member.kind {
                    Member::Character => Kind::Character(major, minor),
                    _ => Kind::Block(major, minor),
                }
            }
            Member::Fifo => Kind::Fifo,
        };
        self.tree.put(parent, &name, meta, kind).map(drop)
    }

    /// Links to what came later. One pass in each direction also finds links to such links.
    fn link_pending(&mut self, pending: Vec<Pending>) -> Outcome<()> {
        let later = self.try_links(pending)?;
        let unknown = self.try_links(later.into_iter().rev().collect())?;
        match unknown.first() {
            None => Ok(()),
            Some(Pending { path, target, .. }) => bad(format!(
                "{}: it is a hard link to {}, which is not in it",
                shown(path),
                shown(target)
            )),
        }
    }

    fn try_links(&mut self, pending: Vec<Pending>) -> Outcome<Vec<Pending>> {
        let mut left = Vec::new();
        for link in pending {
            // Looked up again: its folder may be another one by now.
            let (parent, Some(name)) = self.tree.place(&link.path)? else { continue };
            if self.tree.child(parent, &name).is_some() {
                // Something of the same name came after it.
                continue;
            }
            match self.tree.find(&link.target)? {
                Some(target) => self.tree.link(parent, &name, target)?,
                None => left.push(link),
            }
        }
        Ok(left)
    }
}

fn meta(member: &Entry) -> Meta {
    let xattrs = member.xattrs.iter().filter(|(name, _)| keeps_xattr(name));
    // Linux asks nobody for the mode of a link, and shows this one.
    let is_link = member.kind == Member::SymbolicLink;
    Meta {
        mode: if is_link { 0o777 } else { member.mode },
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        xattrs: xattrs.cloned().collect(),
    }
}
