//! What this host's processor lacks, for the words of an error.

use std::fs::File;
use std::io::Read;

use fireclaw_llm::escape;

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
    /// The first one of this host.
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
            flags: field("flags")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
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

    /// All flags of an AMD EPYC 7B13 as Linux 6.1 tells them to a guest: AVX2, no AVX-512.
    const EPYC: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
        clflush mmx fxsr sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc \
        rep_good nopl nonstop_tsc cpuid extd_apicid tsc_known_freq pni pclmulqdq ssse3 fma cx16 \
        pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm \
        cmp_legacy cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext ssbd ibrs ibpb \
        stibp vmmcall fsgsbase tsc_adjust bmi1 avx2 smep bmi2 invpcid rdseed adx smap clflushopt \
        clwb sha_ni xsaveopt xsavec xgetbv1 clzero xsaveerptr arat npt nrip_save umip vaes \
        vpclmulqdq rdpid fsrm";

    /// Those of QEMU's Nehalem: x86-64-v2 and nothing newer.
    const OLD: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
        clflush mmx fxsr sse sse2 syscall nx lm constant_tsc rep_good nopl cpuid pni ssse3 cx16 \
        sse4_1 sse4_2 x2apic popcnt hypervisor lahf_lm";

    #[test]
    fn every_processor_takes_the_program_that_it_can_run() {
        let of = |flags: &str| Processor::read(&format!("model name: x\nflags: {flags}\n"));
        assert!(of(EPYC).missing().is_empty());
        assert!(of(&format!("{EPYC} avx512f avx512vl avx_vnni")).missing().is_empty());
        assert_eq!(of(OLD).missing(), NEEDED);
        // Each counts, and none is found within another's name.
        for flag in NEEDED {
            let rest: Vec<_> = EPYC.split_whitespace().filter(|one| *one != flag).collect();
            let rest = format!("{} x{flag} {flag}x", rest.join(" "));
            assert_eq!(of(&rest).missing(), [flag]);
        }
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
