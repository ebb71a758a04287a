//! Paths of an archive as places in the tree.

use super::{Id, Kind, Meta, ROOT, Tree};
use crate::problem::{Outcome, bad, shown};

/// Links that are followed for one path, as the kernel does (`MAXSYMLINKS`).
const MAX_FOLLOWED: u32 = 40;

/// Parts of paths that are looked up for one archive: fifty for each of a million files. An
/// archive of nothing but long detours ends here, after seconds.
const MAX_STEPS: u64 = 50_000_000;

const BELOW_A_FILE: &str = "a part of this path is a file, not a folder";

impl Tree {
    /// The directory that a path's last part lies in, which is made if it is missing, and
    /// that part; `None` if the path is the directory itself, such as `./`.
    pub fn place(&mut self, path: &[u8]) -> Outcome<(Id, Option<Vec<u8>>)> {
        let path = path.trim_ascii_end_slashes();
        let (parents, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        match last {
            b"" | b"." | b".." => Ok((self.walk(path, true)?.unwrap_or(ROOT), None)),
            _ => Ok((self.walk(parents, true)?.unwrap_or(ROOT), Some(last.to_vec()))),
        }
    }

    /// The file at a path, whose last part is not followed if it is a link.
    pub fn find(&mut self, path: &[u8]) -> Outcome<Option<Id>> {
        let path = path.trim_ascii_end_slashes();
        let (parents, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if matches!(last, b"" | b"." | b"..") {
            return self.walk(path, false);
        }
        let parent = self.walk(parents, false)?;
        Ok(parent.and_then(|parent| self.child(parent, last)))
    }

    /// The directory at the end of a link that is at `id`, if there is one.
    pub fn directory_behind(&mut self, parent: Id, id: Id) -> Outcome<Option<Id>> {
        let Kind::Link(target) = &self.inode(id).kind else { return Ok(None) };
        let target = target.to_vec();
        self.walk_from(parent, &target, false)
    }

    /// Follows a path from the root. Missing directories are made, or give `None`.
    fn walk(&mut self, path: &[u8], make: bool) -> Outcome<Option<Id>> {
        self.walk_from(ROOT, path, make)
    }

    fn walk_from(&mut self, start: Id, path: &[u8], make: bool) -> Outcome<Option<Id>> {
        // What is still to be walked: the path, and targets of links on top of it.
        let mut rest: Vec<(Box<[u8]>, usize)> = vec![(path.into(), 0)];
        let (mut at, mut followed) = (if path.starts_with(b"/") { ROOT } else { start }, 0);
        while let Some((text, from)) = rest.last_mut() {
            let tail = &text[*from..];
            if tail.is_empty() {
                rest.pop();
                continue;
            }
            let end = tail.iter().position(|byte| *byte == b'/').unwrap_or(tail.len());
            let name = tail[..end].to_vec();
            *from = (*from + end + 1).min(text.len());
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return bad(format!("its paths have more than {MAX_STEPS} parts to follow"));
            }
            let Kind::Directory { parent, entries } = &self.inode(at).kind else {
                return no_way(path, make, BELOW_A_FILE);
            };
            let there = match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    at = *parent;
                    continue;
                }
                name => entries.get(name).map(|entry| entry.id),
            };
            match there {
                None if make => at = self.put_directory(at, &name, Meta::implied())?,
                None => return Ok(None),
                Some(id) => match &self.inode(id).kind {
                    Kind::Directory { .. } => at = id,
                    Kind::Link(target) => {
                        followed += 1;
                        if followed > MAX_FOLLOWED {
                            return no_way(path, make, "links on its way go round in a circle");
                        }
                        if target.starts_with(b"/") {
                            at = ROOT;
                        }
                        rest.push((target.clone(), 0));
                    }
                    _ => return no_way(path, make, BELOW_A_FILE),
                },
            }
        }
        Ok(Some(at))
    }
}

/// Where something is to be made this is an error; what is only looked for is not there.
fn no_way(path: &[u8], make: bool, why: &str) -> Outcome<Option<Id>> {
    if make { bad(format!("{}: {why}", shown(path))) } else { Ok(None) }
}

trait Trim {
    fn trim_ascii_end_slashes(&self) -> &[u8];
}

impl Trim for [u8] {
    fn trim_ascii_end_slashes(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        &self[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(tree: &mut Tree, path: &str, target: &str) {
        let (parent, name) = tree.place(path.as_bytes()).unwrap();
        let kind = Kind::Link(target.as_bytes().into());
        tree.put(parent, &name.unwrap(), Meta::default(), kind).unwrap();
    }

    fn place(tree: &mut Tree, path: &str) -> Outcome<(Id, Option<Vec<u8>>)> {
        tree.place(path.as_bytes())
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let mut tree = Tree::new();
        let bin = tree.walk(b"usr/bin", true).unwrap().unwrap();
        link(&mut tree, "bin", "usr/bin");
        link(&mut tree, "lib", "/usr/lib");
        link(&mut tree, "out", "../../../etc");
        link(&mut tree, "usr/bin/up", "../..");
        assert_eq!(place(&mut tree, "bin/hello").unwrap().0, bin);
        assert_eq!(place(&mut tree, "/bin/./../bin//hello").unwrap().0, bin);
        assert_eq!(place(&mut tree, "bin/up/bin/x").unwrap().0, bin);
        let lib = place(&mut tree, "lib/x").unwrap().0;
        assert_eq!(tree.find(b"usr/lib").unwrap(), Some(lib));
        let etc = place(&mut tree, "out/x").unwrap().0;
        assert_eq!(tree.find(b"etc").unwrap(), Some(etc));
        assert_eq!(place(&mut tree, "../../..").unwrap(), (ROOT, None));
        assert_eq!(place(&mut tree, "./").unwrap(), (ROOT, None));
    }

    #[test]
    fn circles_and_files_on_the_way_are_refused() {
        let mut tree = Tree::new();
        link(&mut tree, "a", "b");
        link(&mut tree, "b", "a");
        assert!(place(&mut tree, "a/z").unwrap_err().to_string().contains("circle"));
        tree.put(ROOT, b"f", Meta::default(), Kind::Fifo).unwrap();
        assert!(place(&mut tree, "f/z").unwrap_err().to_string().contains("not a folder"));
        assert!(place(&mut tree, "f/../z").is_err());
        assert_eq!(tree.find(b"f/z").unwrap(), None);
        assert_eq!(tree.find(b"a/z").unwrap(), None);
        assert_eq!(tree.find(b"missing/z").unwrap(), None);
    }

    /// Each link here adds 1,600 parts to the way of every file below it.
    #[test]
    fn detours_end_at_the_bound() {
        let mut tree = Tree::new();
        tree.walk(b"d", true).unwrap();
        let long = "d/../".repeat(800);
        for n in 0..38 {
            link(&mut tree, &format!("l{n}"), &format!("{long}l{}", n + 1));
        }
        link(&mut tree, "l38", "d");
        tree.steps = MAX_STEPS - 1_000_000;
        let error = (0..100_000).find_map(|_| place(&mut tree, "l0/x").err());
        assert!(error.unwrap().to_string().contains("parts to follow"));
    }

    proptest! {
        #[test]
        fn no_path_leads_out_or_panics(paths in prop::collection::vec(("(\\.\\.|\\.|[ab]|/){1,6}", "(\\.\\.|[ab]|/){1,6}"), 1..12)) {
            let mut tree = Tree::new();
            for (path, target) in paths {
                if let Ok((parent, Some(name))) = tree.place(path.as_bytes()) {
                    tree.put(parent, &name, Meta::default(), Kind::Link(target.as_bytes().into())).unwrap();
                }
            }
        }
    }
}
