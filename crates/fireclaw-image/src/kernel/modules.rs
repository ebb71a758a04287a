//! Which modules a guest needs, and in which order they load.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;

use object::{Object, ObjectSection};

use crate::plain::plain;

/// The largest module that is taken, in bytes; a cut one does not load.
const MAX_OBJECT: u64 = 64 * 1024 * 1024;

/// A module as it goes into the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name with underscores.
    pub name: String,
    /// `all`, or the one transport that needs it.
    pub group: String,
    /// The uncompressed object without its signature.
    pub object: Vec<u8>,
}

/// The modules of a kernel package.
#[derive(Debug, Default)]
pub struct Modules {
    objects: HashMap<String, Vec<u8>>,
    built_in: BTreeSet<String>,
}

impl Modules {
    /// Whether this file of the package matters here.
    pub fn wants(&self, path: &Path) -> bool {
        is_module_list(path) || module_name(path).is_some()
    }

    /// Takes one of the wanted files.
    pub fn add(&mut self, path: &Path, bytes: Vec<u8>) {
        if is_module_list(path) {
            let list = String::from_utf8_lossy(&bytes).into_owned();
            self.built_in.extend(list.lines().filter_map(|line| module_name(Path::new(line))));
        } else if let Some(name) = module_name(path) {
            self.objects.insert(name, bytes);
        }
    }

    /// The needed modules and all they depend on, each after what it depends
    /// on. A module that is needed everywhere takes its dependencies along
    /// into group `all`.
    pub fn choose(&self, needed: &[(&str, &str)]) -> Result<Vec<Module>, String> {
        let mut order: Vec<String> = Vec::new();
        let mut chosen: BTreeMap<String, Module> = BTreeMap::new();
        for (name, group) in needed {
            self.visit(name, group, &mut order, &mut chosen, 0)?;
        }
        Ok(order.iter().filter_map(|name| chosen.remove(name)).collect())
    }

    fn visit(
        &self,
        name: &str,
        group: &str,
        order: &mut Vec<String>,
        chosen: &mut BTreeMap<String, Module>,
        depth: usize,
    ) -> Result<(), String> {
        const MAX_DEPTH: usize = 32;
        let name = name.replace('-', "_");
        if self.built_in.contains(&name) || depth > MAX_DEPTH {
            return Ok(());
        }
        if let Some(known) = chosen.get_mut(&name)
            && (known.group == "all" || known.group == group)
        {
            return Ok(());
        }
        let packed = self
            .objects
            .get(&name)
            .ok_or_else(|| format!("the kernel has no module {name}, and it is not built in"))?;
        let object = unpack(packed).map_err(|e| format!("module {name}: {e}"))?;
        for dependency in depends(&object).map_err(|e| format!("module {name}: {e}"))? {
            self.visit(&dependency, group, order, chosen, depth + 1)?;
        }
        // Two transports that share a dependency: it is needed by all.
        let group = if chosen.contains_key(&name) { "all" } else { group };
        if !order.contains(&name) {
            order.push(name.clone());
        }
        let module = Module { name: name.clone(), group: group.to_owned(), object };
        chosen.insert(name, module);
        Ok(())
    }
}

fn is_module_list(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "modules.builtin")
}

/// `kernel/fs/ext4/ext4.ko.xz` is `ext4`. Dashes and underscores are the same.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file
        .strip_suffix(".xz")
        .or_else(|| file.strip_suffix(".zst"))
        .or_else(|| file.strip_suffix(".gz"))
        .unwrap_or(file);
    Some(stem.strip_suffix(".ko")?.replace('-', "_"))
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut object = Vec::new();
    plain(packed)?.take(MAX_OBJECT).read_to_end(&mut object)?;
    let signed = unsigned_length(&object);
    object.truncate(signed);
    Ok(object)
}

/// The length without the signature that the build appended.
///
/// The package was verified when it was downloaded, and the guest cannot
/// change its initramfs; under emulation checking a signature again costs the
/// guest tens of milliseconds for each module. Layout: `struct
/// module_signature` of <linux/module_signature.h>, then the marker.
fn unsigned_length(object: &[u8]) -> usize {
    const MARKER: &[u8] = b"~Module signature appended~\n";
    const TRAILER: usize = 12;
    let Some(rest) = object.strip_suffix(MARKER) else { return object.len() };
    let Some(length) = rest.last_chunk::<4>() else { return object.len() };
    let signature = u32::from_be_bytes(*length) as usize;
    rest.len().checked_sub(TRAILER + signature).unwrap_or(object.len())
}

/// The names in the `depends=` line of `.modinfo`.
fn depends(object: &[u8]) -> object::read::Result<Vec<String>> {
    let file = object::File::parse(object)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(Vec::new()) };
    let line = section
        .data()?
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(line)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normal() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("kernel/drivers/char/hw_random/virtio-rng.ko.xz").unwrap(), "virtio_rng");
        assert_eq!(name("lib/modules/6.1/modules.dep"), None);
    }

    #[test]
    fn a_signature_is_cut_off() {
        let mut signed = b"object".to_vec();
        signed.extend([1; 20]);
        signed.extend([0; 8]);
        signed.extend(20u32.to_be_bytes());
        signed.extend(b"~Module signature appended~\n");
        assert_eq!(unsigned_length(&signed), 6);
        assert_eq!(unsigned_length(b"object"), 6);
    }

    #[test]
    fn a_missing_module_is_named_and_a_built_in_one_is_not_missed() {
        let mut modules = Modules::default();
        modules.add(Path::new("modules.builtin"), b"kernel/fs/ext4/ext4.ko\n".to_vec());
        assert_eq!(modules.choose(&[("ext4", "all")]), Ok(Vec::new()));
        assert!(modules.choose(&[("overlay", "all")]).unwrap_err().contains("overlay"));
    }

    proptest! {
        #[test]
        fn any_object_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = depends(&[b"\x7fELF\x02\x01\x01".as_slice(), &bytes].concat());
            let _ = unsigned_length(&[&bytes, b"~Module signature appended~\n".as_slice()].concat());
        }
    }
}
