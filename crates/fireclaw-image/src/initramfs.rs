//! The initial RAM file system: modules, and the guest program as `/init`.
//!
//! The kernel unpacks several cpio archives one after the other into the same
//! tree (Documentation/driver-api/early-userspace/buffer-format.rst), so the
//! modules' archive is made once for a kernel and only joined here.

use std::io::{self, Write};

use cpio::newc::{self, Builder};

use crate::files::digest_of;
use crate::kernel::Module;

/// The program that is `/init` in every VM.
pub static GUEST_PROGRAM: &[u8] = include_bytes!(env!("FIRECLAW_GUEST"));

/// The benchmark's floor: an `/init` that writes one byte and restarts.
pub static FLOOR_PROGRAM: &[u8] = include_bytes!(env!("FIRECLAW_FLOOR"));

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Packs modules with the list that orders them, as the guest's init reads it.
pub fn modules_archive(modules: &[Module]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    let order: String = modules.iter().map(|m| format!("{} {}.ko\n", m.group, m.name)).collect();
    add(&mut archive, "modules", DIRECTORY, b"")?;
    add(&mut archive, "modules/order", FILE, order.as_bytes())?;
    for module in modules {
        add(&mut archive, &format!("modules/{}.ko", module.name), FILE, &module.object)?;
    }
    finish(archive)
}

/// Joins the modules with `program` as `/init`.
pub fn join(modules: &[u8], program: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = modules.to_vec();
    // A kernel built without an initramfs of its own has no console for init.
    add(&mut archive, "dev", DIRECTORY, b"")?;
    add_console(&mut archive)?;
    add(&mut archive, "init", PROGRAM, program)?;
    finish(archive)
}

/// An initramfs for the benchmark's floor.
pub fn build_floor_initramfs() -> io::Result<Vec<u8>> {
    join(&[], FLOOR_PROGRAM)
}

/// A name for the joined archive that changes with everything in it.
pub fn key(modules_sha256: Option<&str>, program: &[u8]) -> String {
    let all = format!("{} {}", modules_sha256.unwrap_or("none"), digest_of(program));
    digest_of(all.as_bytes())[..16].to_owned()
}

fn add(archive: &mut Vec<u8>, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut writer = Builder::new(name).mode(mode).write(archive, size);
    writer.write_all(bytes)?;
    writer.finish()?;
    Ok(())
}

fn add_console(archive: &mut Vec<u8>) -> io::Result<()> {
    const CHARACTER_DEVICE: u32 = 0o020_600;
    let console = Builder::new("dev/console").mode(CHARACTER_DEVICE).rdev_major(5).rdev_minor(1);
    console.write(archive, 0).finish()?;
    Ok(())
}

fn finish(archive: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut archive = newc::trailer(archive)?;
    // The next archive must start at a multiple of four.
    archive.resize(archive.len().next_multiple_of(512), 0);
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_can_be_read_back() {
        let modules = [Module { name: "overlay".into(), group: "all".into(), object: vec![1; 5] }];
        let first = modules_archive(&modules).unwrap();
        let whole = join(&first, b"program").unwrap();
        let mut reader = newc::Reader::new(&whole[first.len()..]).unwrap();
        let mut seen = Vec::new();
        while !reader.entry().is_trailer() {
            seen.push((reader.entry().name().to_owned(), reader.entry().mode()));
            reader = newc::Reader::new(reader.finish().unwrap()).unwrap();
        }
        let console = 0o020_600;
        let expected = [("dev", DIRECTORY), ("dev/console", console), ("init", PROGRAM)];
        assert_eq!(seen, expected.map(|(name, mode)| (name.to_owned(), mode)));
        assert_eq!(first.len() % 4, 0);
    }

    #[test]
    fn the_guest_program_is_static() {
        // No interpreter: nothing else is there when the kernel starts it.
        use object::Object;
        let elf = object::File::parse(GUEST_PROGRAM).unwrap();
        assert!(elf.sections().next().is_some());
        use object::ObjectSection;
        assert!(!elf.sections().any(|s| s.name() == Ok(".interp")));
    }

    #[test]
    fn the_key_changes_with_each_part() {
        assert_ne!(key(None, b"a"), key(None, b"b"));
        assert_ne!(key(None, b"a"), key(Some("m"), b"a"));
    }
}
