//! What this machine's processor lacks, for the words of an error.

use std::fs::File;
use std::io::Read;

use crate::error::escape;

/// The most bytes of `/proc/cpuinfo` that are read: the first processor's part has less.
const MAX_INFO: u64 = 16 * 1024;

/// What the prebuilt server's program was compiled for.
const NEEDED: [&str; 5] = ["avx", "avx2", "fma", "f16c", "bmi2"];

/// What other builds of llama.cpp want, whose absence explains a crash by signal 4.
const WANTED: [&str; 4] = ["avx512f", "avx512vl", "avx512_vnni", "avx_vnni"];

/// The processor's name and flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    pub name: String,
    flags: Vec<String>,
}

impl Processor {
    /// The first one of this machine.
    pub fn of_this_machine() -> Self {
        let mut info = Vec::new();
        if let Ok(file) = File::open("/proc/cpuinfo") {
            let _ = file.take(MAX_INFO).read_to_end(&mut info);
        }
        Self::read(&String::from_utf8_lossy(&info))
    }

    fn read(info: &str) -> Self {
        let field = |name: &str| {
            info.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then_some(value.trim())
            })
        };
        Self {
            name: escape(field("model name").unwrap_or("an unknown processor")),
            flags: field("flags").unwrap_or_default().split(' ').map(str::to_owned).collect(),
        }
    }

    /// What it lacks of what the prebuilt program needs.
    pub fn missing(&self) -> Vec<&'static str> {
        self.without(&NEEDED)
    }

    /// What signal 4 means on it.
    pub fn illegal_instruction(&self) -> String {
        let lacks = [self.without(&NEEDED), self.without(&WANTED)].concat();
        format!(
            "the program was built for another processor than {}, which lacks {}",
            self.name,
            if lacks.is_empty() { "something it needs".to_owned() } else { lacks.join(", ") }
        )
    }

    fn without(&self, wanted: &[&'static str]) -> Vec<&'static str> {
        let has = |flag: &str| self.flags.iter().any(|one| one == flag);
        wanted.iter().copied().filter(|flag| !has(flag)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEHALEM: &str = "processor\t: 0\nmodel name\t: Intel Core i7 9xx\x1b[1m\n\
                           flags\t\t: fpu sse4_2 popcnt\n\nprocessor\t: 1\nflags\t: avx2\n";

    #[test]
    fn what_an_old_processor_lacks_is_named() {
        let old = Processor::read(NEHALEM);
        assert_eq!(old.missing(), NEEDED);
        let said = old.illegal_instruction();
        assert!(said.contains("Intel Core i7 9xx\\u{1b}[1m"), "{said}");
        assert!(said.contains("avx_vnni"), "{said}");
    }

    #[test]
    fn one_that_has_all_lacks_nothing_needed() {
        let info = format!("model name: x\nflags: {}\n", NEEDED.join(" "));
        let new = Processor::read(&info);
        assert!(new.missing().is_empty());
        assert!(new.illegal_instruction().contains("avx512f"));
        assert_eq!(Processor::read("").missing(), NEEDED);
    }
}
