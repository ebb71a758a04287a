//! What kind of kernel a file is, and the `vmlinux` inside a `bzImage`.
//!
//! Offsets are those of the kernel's boot protocol (Documentation/x86/boot.rst).

use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64, Machine, NoteType};
use object::read::elf::{FileHeader, ProgramHeader};

use super::decompress;

/// The type of the ELF note that says where a PVH boot enters (Xen's
/// `XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: NoteType = NoteType(18);

/// The kinds of kernel file that VMMs boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An uncompressed ELF file.
    Vmlinux,
    /// The self-extracting file that distributions install.
    BzImage,
}

/// Why a file is no kernel for this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Problem {
    #[error("it is neither an x86-64 vmlinux nor a bzImage")]
    NotAKernel,
    #[error("it is for another architecture ({0}), not x86-64")]
    Architecture(&'static str),
    #[error("it is damaged or cut off: {0}")]
    Damaged(String),
}

/// Tells what a file is.
pub fn inspect(file: &[u8]) -> Result<Format, Problem> {
    if file.starts_with(b"\x7fELF") {
        let machine = file.get(18..20).map_or(0, |m| u16::from_le_bytes([m[0], m[1]]));
        return match Machine(machine) {
            EM_X86_64 => Ok(Format::Vmlinux),
            object::elf::EM_AARCH64 => Err(Problem::Architecture("arm64")),
            object::elf::EM_386 => Err(Problem::Architecture("32-bit x86")),
            _ => Err(Problem::Architecture("unknown")),
        };
    }
    if file.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Err(Problem::Architecture("arm64"));
    }
    if file.get(0x202..0x206) == Some(b"HdrS") {
        // XLF_KERNEL_64: there is a 64-bit entry point.
        return match file.get(0x236) {
            Some(flags) if flags & 1 == 1 => Ok(Format::BzImage),
            Some(_) => Err(Problem::Architecture("32-bit x86")),
            None => Err(Problem::Damaged("it ends inside its header".into())),
        };
    }
    Err(Problem::NotAKernel)
}

/// Unpacks the `vmlinux` inside a `bzImage`.
pub fn extract(file: &[u8]) -> Result<Vec<u8>, Problem> {
    let damaged = |what: &str| Problem::Damaged(what.into());
    let word = |at: usize| {
        file.get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(|bytes| u32::from_le_bytes(bytes) as usize)
            .ok_or_else(|| damaged("it ends inside its header"))
    };
    let setup_sectors = match file.get(0x1f1) {
        Some(0) => 4,
        Some(n) => usize::from(*n),
        None => return Err(damaged("it ends inside its header")),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    let payload = start
        .checked_add(word(0x24c)?)
        .and_then(|end| file.get(start..end))
        .ok_or_else(|| damaged("its payload is cut off"))?;
    let vmlinux = decompress::payload(payload).map_err(|e| Problem::Damaged(e.to_string()))?;
    match inspect(&vmlinux) {
        Ok(Format::Vmlinux) => Ok(vmlinux),
        _ => Err(damaged("its payload is no kernel")),
    }
}

/// Whether QEMU can enter this `vmlinux` directly (CONFIG_PVH).
pub fn has_pvh_entry(vmlinux: &[u8]) -> bool {
    let find = || -> object::read::Result<bool> {
        let header = FileHeader64::<Endianness>::parse(vmlinux)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, vmlinux)? {
            if let Some(mut notes) = segment.notes(endian, vmlinux)? {
                while let Some(note) = notes.next()? {
                    if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    };
    find().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_architectures_are_named() {
        let mut arm = vec![0; 64];
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(inspect(&arm), Err(Problem::Architecture("arm64")));
        let mut elf = b"\x7fELF".to_vec();
        elf.resize(64, 0);
        elf[18..20].copy_from_slice(&object::elf::EM_AARCH64.0.to_le_bytes());
        assert_eq!(inspect(&elf), Err(Problem::Architecture("arm64")));
        assert_eq!(inspect(b"#!/bin/sh\n"), Err(Problem::NotAKernel));
        assert_eq!(inspect(b""), Err(Problem::NotAKernel));
    }

    proptest! {
        #[test]
        fn any_file_is_inspected_without_panic(mut file in prop::collection::vec(any::<u8>(), 0x260..0x800)) {
            file[0x202..0x206].copy_from_slice(b"HdrS");
            let _ = inspect(&file);
            let _ = extract(&file);
            file[..4].copy_from_slice(b"\x7fELF");
            let _ = has_pvh_entry(&file);
        }
    }
}
