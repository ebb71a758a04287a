//! A first look at KVM: how fast it runs the code of a kernel.
//!
//! Some clouds offer a `/dev/kvm` that runs programs of a guest at full speed and interprets
//! its kernel, a few hundred nanoseconds an instruction: ordinary kernels hang there. A small
//! loop in ring 0 tells such a KVM in milliseconds, where a boot would take its whole limit,
//! and a host that is only busy is not mistaken for one.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Turns of the loop: so many that starting it does not matter.
const TURNS: u32 = 10_000;

/// The most that a turn takes on a KVM that is one, in nanoseconds. A processor takes about
/// one, an interpreter some hundreds.
const MOST_NS: u64 = 100;

/// How often it is tried: one interruption must not decide.
const TRIES: usize = 5;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(2);

/// `mov ecx, TURNS`, `loop` to itself, `hlt` (Intel SDM, volume 2).
const CODE: [u8; 8] = {
    let [a, b, c, d] = TURNS.to_le_bytes();
    [0xb9, a, b, c, d, 0xe2, 0xfe, 0xf4]
};

const PAGE: usize = 4096;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It runs a kernel's code as the processor does: worth a boot.
    Fast,
    /// It interprets it.
    Interprets {
        /// What a turn of the loop took at best.
        turn_ns: u64,
    },
    /// Nothing is known: why.
    Unknown(String),
}

/// Looks at `/dev/kvm`. It takes milliseconds, and [`LIMIT`] if KVM hangs.
pub fn look() -> Look {
    let (tell, told) = mpsc::channel();
    // A KVM that does not come back keeps its thread, not us.
    let looking = thread::Builder::new().name("kvm-look".into()).spawn(move || {
        let _ = tell.send(best());
    });
    if let Err(e) = looking {
        return Look::Unknown(e.to_string());
    }
    match told.recv_timeout(LIMIT) {
        Ok(Ok(best)) => judge(best),
        Ok(Err(why)) => Look::Unknown(why),
        Err(_) => Look::Unknown("KVM does not come back".into()),
    }
}

/// What a time for [`TURNS`] means.
fn judge(best: Duration) -> Look {
    let turn_ns = u64::try_from(best.as_nanos()).unwrap_or(u64::MAX) / u64::from(TURNS);
    if turn_ns > MOST_NS { Look::Interprets { turn_ns } } else { Look::Fast }
}

/// The shortest of a few tries.
fn best() -> Result<Duration, String> {
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        best = best.min(once().map_err(|e| e.to_string())?);
        if matches!(judge(best), Look::Fast) {
            break;
        }
    }
    Ok(best)
}

/// A page of memory of our own.
struct Page(*mut core::ffi::c_void);

impl Page {
    #[allow(unsafe_code)]
    fn new() -> rustix::io::Result<Self> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        // SAFETY: the page is ours alone, writable, and larger than the code.
        unsafe { page.cast::<[u8; CODE.len()]>().write(CODE) };
        Ok(Self(page))
    }
}

impl Drop for Page {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; the VM that used it is gone.
        let _ = unsafe { munmap(self.0, PAGE) };
    }
}

/// Runs the loop in a VM of one page, in protected mode, where no KVM has to emulate.
#[allow(unsafe_code)]
fn once() -> Result<Duration, Box<dyn std::error::Error>> {
    // Dropped last.
    let page = Page::new()?;
    let vm = Kvm::new()?.create_vm()?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: PAGE as u64,
        userspace_addr: page.0 as u64,
    };
    // SAFETY: the page outlives the VM, and nobody else uses it.
    unsafe { vm.set_user_memory_region(region)? };
    let mut vcpu = vm.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    let flat = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 8,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = kvm_segment { type_: 0xb, ..flat };
    let data = kvm_segment { type_: 3, selector: 16, ..flat };
    (special.ds, special.es, special.ss) = (data, data, data);
    special.cr0 |= 1;
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    (registers.rip, registers.rflags) = (0, 2);
    vcpu.set_regs(&registers)?;
    let start = Instant::now();
    match vcpu.run()? {
        VcpuExit::Hlt => Ok(start.elapsed()),
        other => Err(format!("KVM ended the loop with {other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_told_from_an_interpreter() {
        let of = |turn_ns: u64| judge(Duration::from_nanos(turn_ns * u64::from(TURNS)));
        assert_eq!(of(0), Look::Fast);
        assert_eq!(of(MOST_NS), Look::Fast);
        assert_eq!(of(300), Look::Interprets { turn_ns: 300 });
    }

    #[test]
    fn it_comes_back_whatever_the_host_has() {
        let seen = look();
        if !std::path::Path::new("/dev/kvm").exists() {
            assert!(matches!(seen, Look::Unknown(_)), "{seen:?}");
        }
    }
}
