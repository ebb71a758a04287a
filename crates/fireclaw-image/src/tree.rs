//! A root file system in memory: names, owners and links, with the content of files as
//! places in the image's file.
//!
//! Whatever an archive names is looked for and made in here; the host's own files cannot be
//! named. Links are followed as a kernel would with this tree as its root.

mod resolve;

use std::collections::BTreeMap;
use std::mem::size_of;

use crate::archive::Time;
use crate::problem::{Outcome, bad, shown};

/// Blocks of a file, one after the other, that lie in the same order in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first one's place in the file.
    pub logical: u32,
    /// The first one's place in the image.
    pub physical: u32,
    /// How many.
    pub length: u32,
}

/// The longest name of a file, in bytes: what ext4 has room for (`EXT4_NAME_LEN`).
pub const MAX_NAME: usize = 255;

/// Names for one file: what ext4 has room for (`EXT4_LINK_MAX`).
pub const MAX_LINKS: u32 = 65_000;

/// What the tree may hold in memory. A Debian with desktop and tool kits has 300,000 files,
/// which take less than a fifth of this.
const MAX_HELD: usize = 512 << 20;

/// The number of an inode in a [`Tree`].
pub type Id = u32;

/// The root directory.
pub const ROOT: Id = 0;

/// What all kinds of files have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permissions with set-user-id, set-group-id and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Extended attributes as the kernel names them, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    /// A directory that the archive does not speak of.
    fn implied() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

/// What a file is.
#[derive(Debug)]
pub enum Kind {
    Directory { parent: Id, entries: BTreeMap<Box<[u8]>, Entry> },
    File { size: u64, extents: Vec<Extent> },
    Link(Box<[u8]>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub id: Id,
    /// The layer that made it; see [`Tree::begin_layer`].
    layer: u32,
}

/// A file with its names counted.
#[derive(Debug)]
pub struct Inode {
    pub meta: Meta,
    pub kind: Kind,
    /// The names that it has. Directories have one.
    pub links: u32,
}

impl Inode {
    fn new(meta: Meta, kind: Kind) -> Self {
        Self { meta, kind, links: 0 }
    }

    /// What is in a directory.
    pub fn entries(&self) -> Option<&BTreeMap<Box<[u8]>, Entry>> {
        match &self.kind {
            Kind::Directory { entries, .. } => Some(entries),
            _ => None,
        }
    }

    fn held(&self) -> usize {
        let own = match &self.kind {
            Kind::File { extents, .. } => extents.len() * size_of::<Extent>(),
            Kind::Link(target) => target.len(),
            _ => 0,
        };
        let xattrs = &self.meta.xattrs;
        let xattrs: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        size_of::<Self>() + own + xattrs
    }
}

/// The whole file system.
pub struct Tree {
    inodes: Vec<Inode>,
    held: usize,
    steps: u64,
    layer: u32,
    /// Where the content of files was that have no name any more.
    dead: Vec<Extent>,
}

impl Tree {
    /// An empty root directory.
    pub fn new() -> Self {
        let entries = BTreeMap::new();
        let mut root = Inode::new(Meta::implied(), Kind::Directory { parent: ROOT, entries });
        root.links = 1;
        Self { inodes: vec![root], held: 0, steps: 0, layer: 0, dead: Vec::new() }
    }

    /// From here on, what is named belongs to a layer above what there is.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// A file. Numbers come from this tree and are never taken back.
    pub fn inode(&self, id: Id) -> &Inode {
        &self.inodes[id as usize]
    }

    /// How many inodes there are, with those that have no name any more.
    pub fn count(&self) -> usize {
        self.inodes.len()
    }

    fn entries_mut(&mut self, directory: Id) -> Option<&mut BTreeMap<Box<[u8]>, Entry>> {
        match &mut self.inodes[directory as usize].kind {
            Kind::Directory { entries, .. } => Some(entries),
            _ => None,
        }
    }

    /// The places in the image's file that nothing uses any more.
    pub fn dead(&self) -> &[Extent] {
        &self.dead
    }

    /// What `name` stands for in a directory.
    pub fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        Some(self.inode(directory).entries()?.get(name)?.id)
    }

    /// Gives a directory that exists what an archive says of it.
    pub fn set_meta(&mut self, id: Id, meta: Meta) {
        self.inodes[id as usize].meta = meta;
    }

    /// Makes a directory, or keeps the one that is there with what is in it.
    pub fn put_directory(&mut self, parent: Id, name: &[u8], meta: Meta) -> Outcome<Id> {
        if let Some(there) = self.child(parent, name)
            && self.inode(there).entries().is_some()
        {
            self.set_meta(there, meta);
            self.touch(parent, name);
            return Ok(there);
        }
        self.put(parent, name, meta, Kind::Directory { parent, entries: BTreeMap::new() })
    }

    /// Makes a file; what had its name before is gone.
    pub fn put(&mut self, parent: Id, name: &[u8], meta: Meta, kind: Kind) -> Outcome<Id> {
        let inode = Inode::new(meta, kind);
        self.hold(inode.held())?;
        let id = self.inodes.len() as Id;
        self.inodes.push(inode);
        self.enter(parent, name, id)?;
        Ok(id)
    }

    /// Gives a file another name. Two names of one file in the same place are one name.
    pub fn link(&mut self, parent: Id, name: &[u8], target: Id) -> Outcome<()> {
        if self.child(parent, name) == Some(target) {
            return Ok(());
        }
        let inode = self.inode(target);
        if inode.entries().is_some() {
            return bad(format!("{}: it is a hard link to a folder", shown(name)));
        }
        if inode.links >= MAX_LINKS {
            let most = MAX_LINKS;
            return bad(format!(
                "{}: the file that it is a link to has {most} names, and ext4 has no more",
                shown(name)
            ));
        }
        self.enter(parent, name, target)
    }

    fn enter(&mut self, parent: Id, name: &[u8], id: Id) -> Outcome<()> {
        if name.len() > MAX_NAME {
            return bad(format!("{}: a name has more than {MAX_NAME} bytes", shown(name)));
        }
        if self.inode(parent).entries().is_none() {
            return bad(format!("{}: its folder is gone", shown(name)));
        }
        self.hold(name.len() + size_of::<(Box<[u8]>, Entry)>())?;
        // Counted first: what is replaced may be a folder that the file itself is in.
        self.inodes[id as usize].links += 1;
        self.remove(parent, name);
        let layer = self.layer;
        if let Some(entries) = self.entries_mut(parent) {
            entries.insert(name.into(), Entry { id, layer });
        }
        Ok(())
    }

    fn touch(&mut self, directory: Id, name: &[u8]) {
        let layer = self.layer;
        if let Some(entry) = self.entries_mut(directory).and_then(|entries| entries.get_mut(name)) {
            entry.layer = layer;
        }
    }

    /// Removes a name, and all that is below it.
    pub fn remove(&mut self, directory: Id, name: &[u8]) {
        let Some(entry) = self.entries_mut(directory).and_then(|entries| entries.remove(name))
        else {
            return;
        };
        // Not by recursion: an archive says how deep this goes.
        let mut gone = vec![entry.id];
        while let Some(id) = gone.pop() {
            let inode = &mut self.inodes[id as usize];
            inode.links = inode.links.saturating_sub(1);
            if inode.links > 0 {
                continue;
            }
            self.held = self.held.saturating_sub(inode.held());
            inode.meta.xattrs = Vec::new();
            match std::mem::replace(&mut inode.kind, Kind::Fifo) {
                Kind::Directory { entries, .. } => gone.extend(entries.values().map(|e| e.id)),
                Kind::File { extents, .. } => self.dead.extend(extents),
                _ => {}
            }
        }
    }

    /// Removes what layers below the current one put under a name, and keeps what the
    /// current one did.
    pub fn remove_older(&mut self, directory: Id, name: &[u8]) {
        let Some(entry) = self.inode(directory).entries().and_then(|e| e.get(name)) else { return };
        if entry.layer == self.layer {
            self.remove_all_older(entry.id);
        } else {
            self.remove(directory, name);
        }
    }

    /// The same for everything in a directory.
    pub fn remove_all_older(&mut self, directory: Id) {
        let mut directories = vec![directory];
        while let Some(directory) = directories.pop() {
            let Some(entries) = self.inode(directory).entries() else { continue };
            let (own, older): (Vec<_>, Vec<_>) =
                entries.iter().partition(|(_, entry)| entry.layer == self.layer);
            let older: Vec<_> = older.into_iter().map(|(name, _)| name.clone()).collect();
            directories.extend(own.into_iter().map(|(_, entry)| entry.id));
            for name in older {
                self.remove(directory, &name);
            }
        }
    }

    /// Counts bytes that are held in memory for this tree.
    pub fn hold(&mut self, bytes: usize) -> Outcome<()> {
        self.held += bytes;
        if self.held > MAX_HELD {
            let most = MAX_HELD >> 20;
            return bad(format!("its names, links and attributes take more than {most} MiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tree: &mut Tree, path: &str, block: u32) -> Id {
        let (parent, name) = tree.place(path.as_bytes()).unwrap();
        let extents = vec![Extent { logical: 0, physical: block, length: 1 }];
        let kind = Kind::File { size: 1, extents };
        tree.put(parent, &name.unwrap(), Meta::default(), kind).unwrap()
    }

    fn names(tree: &Tree, id: Id) -> Vec<String> {
        let entries = tree.inode(id).entries().unwrap();
        entries.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn a_replaced_file_lives_on_under_its_other_name() {
        let mut tree = Tree::new();
        let one = file(&mut tree, "one", 7);
        tree.link(ROOT, b"two", one).unwrap();
        file(&mut tree, "one", 8);
        assert_eq!((tree.inode(one).links, tree.dead().len()), (1, 0));
        file(&mut tree, "two", 9);
        assert_eq!(tree.dead()[0].physical, 7);
    }

    #[test]
    fn a_file_can_take_the_name_of_its_own_folder() {
        let mut tree = Tree::new();
        let one = file(&mut tree, "d/one", 7);
        tree.link(ROOT, b"d", one).unwrap();
        assert!(matches!(tree.inode(one).kind, Kind::File { size: 1, .. }));
        assert_eq!((tree.inode(one).links, tree.dead().len()), (1, 0));
    }

    #[test]
    fn what_is_below_a_replaced_directory_is_gone_however_deep() {
        let mut tree = Tree::new();
        let mut at = ROOT;
        for _ in 0..100_000 {
            at = tree.put_directory(at, b"d", Meta::default()).unwrap();
        }
        let kind =
            Kind::File { size: 1, extents: vec![Extent { logical: 0, physical: 5, length: 1 }] };
        tree.put(at, b"x", Meta::default(), kind).unwrap();
        let held = tree.held;
        file(&mut tree, "d", 9);
        assert_eq!(tree.dead().len(), 1);
        assert!(tree.held < held / 2);
    }

    #[test]
    fn nothing_is_put_into_a_folder_that_is_gone() {
        let mut tree = Tree::new();
        let one = file(&mut tree, "one", 1);
        let folder = tree.put_directory(ROOT, b"d", Meta::default()).unwrap();
        tree.remove(ROOT, b"d");
        assert!(tree.link(folder, b"two", one).is_err());
        assert_eq!(tree.inode(one).links, 1);
    }

    #[test]
    fn a_whiteout_takes_only_what_is_below_its_layer() {
        let mut tree = Tree::new();
        for path in ["d/old", "d/kept/old", "gone/x"] {
            file(&mut tree, path, 1);
        }
        tree.begin_layer();
        file(&mut tree, "d/new", 2);
        let d = tree.child(ROOT, b"d").unwrap();
        tree.put_directory(d, b"kept", Meta::default()).unwrap();
        tree.remove_all_older(d);
        tree.remove_older(ROOT, b"gone");
        tree.remove_older(ROOT, b"never");
        assert_eq!(names(&tree, ROOT), ["d"]);
        assert_eq!(names(&tree, d), ["kept", "new"]);
        assert!(names(&tree, tree.child(d, b"kept").unwrap()).is_empty());
    }

    #[test]
    fn links_are_counted_to_the_bound_of_the_file_system() {
        let mut tree = Tree::new();
        let one = file(&mut tree, "one", 1);
        for n in 1..MAX_LINKS {
            tree.link(ROOT, n.to_string().as_bytes(), one).unwrap();
        }
        tree.link(ROOT, b"1", one).unwrap();
        let error = tree.link(ROOT, b"more", one).unwrap_err().to_string();
        assert!(error.contains("65000 names"), "{error}");
        assert!(tree.link(ROOT, b"root", ROOT).is_err());
        assert!(tree.put(ROOT, &[b'n'; 256], Meta::default(), Kind::Fifo).is_err());
    }

    #[test]
    fn what_is_held_in_memory_is_bounded() {
        let mut tree = Tree::new();
        let target: Box<[u8]> = vec![b't'; 4000].into();
        let error = (0u32..).find_map(|n| {
            let kind = Kind::Link(target.clone());
            tree.put(ROOT, &n.to_be_bytes(), Meta::default(), kind).err()
        });
        assert!(error.unwrap().to_string().contains("512 MiB"));
    }
}
