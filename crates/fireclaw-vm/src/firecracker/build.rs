//! Which of Firecracker's builds a program is.

use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

/// Whether a program asks for a dynamic linker, as builds for glibc do. Of these Firecracker
/// has no system-call policy (`docs/seccomp.md` in its repository): its VMMs may make any
/// call. What is no program, such as a script, does not.
pub(super) fn is_dynamic(file: &[u8]) -> bool {
    let asks = || -> object::read::Result<bool> {
        let header = FileHeader64::<Endianness>::parse(file)?;
        let endian = header.endian()?;
        let mut parts = header.program_headers(endian, file)?.iter();
        Ok(parts.any(|part| part.p_type(endian) == PT_INTERP))
    };
    asks().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_glibc_is_told_from_a_static_one() {
        // This one is dynamic; without the part that names the linker it is as good as static.
        let mut file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_dynamic(&file));
        let number = |at: usize, length: usize| {
            let bytes = &file[at..at + length];
            bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
        };
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let named = (0..count).map(|n| table + n * size).find(|at| number(*at, 4) == 3);
        file[named.unwrap()] = 0;
        assert!(!is_dynamic(&file));
        for other in [&b""[..], b"#!/bin/sh\n", &file[..40], &[0x7f; 4096]] {
            assert!(!is_dynamic(other));
        }
    }
}
