//! QEMU's command line for one VM.

use std::os::fd::RawFd;

use fireclaw_protocol::boot::{self, INTERFACE, PORT_NAME};

use super::Accelerator;
use crate::backend::{MEMORY_FILE, Memory};
use crate::{BLANK_MAC, MachineSpec};

/// Inherited socket descriptors, by their number in QEMU.
#[derive(Debug, Clone, Copy)]
pub struct Fds {
    pub console: RawFd,
    /// None: a socket named [`STREAM_SOCKET`] that anybody can connect to, again
    /// and again.
    pub stream: Option<RawFd>,
    pub qmp: RawFd,
    /// The tap of the network interface, if there is one.
    pub interface: Option<RawFd>,
}

/// The stream's socket in the directory of a detached VM.
pub const STREAM_SOCKET: &str = "stream";
/// What the stream's end in the VMM is called.
pub const STREAM: &str = "stream";

/// Flushes of the guest reach the host's disk. What cannot be read or written is
/// the guest's error, also for want of space: QEMU would else stop the VM,
/// which nobody would notice and nobody would start again.
const DISK_CACHE: &str = "cache=writeback";
const DISK_ERRORS: &str = "rerror=report,werror=report";

/// How much memory TCG may use for translated code, in MiB. Without a bound a
/// busy guest takes over a gibibyte.
const TCG_CACHE_MIB: u32 = 128;

/// Builds the arguments. `id` is the mark by which orphans are found.
pub fn arguments(
    spec: &MachineSpec,
    id: &str,
    accelerator: Accelerator,
    memory: Memory<'_>,
    fds: Fds,
) -> Vec<std::ffi::OsString> {
    let mut line = Line::default();
    line.two("-name", id);
    // virtio-mmio devices only, no PCI, no BIOS menus.
    let backed = !matches!(memory, Memory::Fresh);
    let backend = if backed { ",memory-backend=memory" } else { "" };
    line.two("-M", format!("microvm,rtc=on,auto-kernel-cmdline=on{backend}"));
    let (directory, share) = match memory {
        Memory::Fresh => (None, ""),
        Memory::SavedTo(directory) => (Some(directory), "on"),
        // Not shared: a private mapping, copied on write.
        Memory::RestoredFrom(directory) => (Some(directory), "off"),
    };
    if let Some(directory) = directory {
        let mut object = std::ffi::OsString::from(format!(
            "memory-backend-file,id=memory,size={}M,share={share},mem-path=",
            spec.memory_mib
        ));
        object.push(escaped(&directory.join(MEMORY_FILE)));
        line.two("-object", object);
    }
    if matches!(memory, Memory::RestoredFrom(_)) {
        line.two("-incoming", "defer");
    }
    match accelerator {
        Accelerator::Kvm => line.two("-accel", "kvm").two("-cpu", "host"),
        Accelerator::Tcg { .. } => {
            line.two("-accel", format!("tcg,tb-size={TCG_CACHE_MIB}")).two("-cpu", "max")
        }
    };
    line.two("-smp", spec.cpus.to_string());
    line.two("-m", format!("{}M", spec.memory_mib));
    line.one("-nodefaults").one("-no-user-config").two("-display", "none").one("-no-reboot");
    line.two("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.two("-chardev", format!("socket,id=console,fd={}", fds.console));
    line.two("-serial", "chardev:console");
    line.two("-chardev", format!("socket,id=qmp,fd={}", fds.qmp));
    line.two("-mon", "chardev=qmp,mode=control");
    line.two("-device", "virtio-serial-device");
    line.two(
        "-chardev",
        match fds.stream {
            Some(fd) => format!("socket,id={STREAM},fd={fd}"),
            None => format!("socket,id={STREAM},path={STREAM_SOCKET},server=on,wait=off"),
        },
    );
    line.two("-device", format!("virtserialport,chardev=stream,name={PORT_NAME}"));
    line.two("-device", "virtio-rng-device");
    for (n, disk) in spec.disks.iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        let mut drive = std::ffi::OsString::from(format!(
            "if=none,id=disk{n},format=raw,{DISK_CACHE},read-only={read_only},file="
        ));
        drive.push(escaped(&disk.path));
        line.two("-drive", drive);
        line.two("-device", format!("virtio-blk-device,drive=disk{n},{DISK_ERRORS}"));
    }
    if let Some(fd) = fds.interface {
        line.two("-netdev", format!("tap,id=interface,fd={fd}"));
        line.two("-device", format!("virtio-net-device,netdev=interface,mac={BLANK_MAC}"));
    }
    // A restored guest has its kernel in memory; reading the files again would
    // only cost time.
    if !matches!(memory, Memory::RestoredFrom(_)) {
        line.two("-kernel", &spec.kernel).two("-initrd", &spec.initramfs);
        line.two("-append", kernel_line(spec, accelerator));
    }
    line.0
}

/// The guest kernel's parameters (kernel-parameters.txt).
fn kernel_line(spec: &MachineSpec, accelerator: Accelerator) -> String {
    let mut words: Vec<String> = [
        "console=ttyS0",
        "quiet",
        // A panic or restart is a triple fault, on which -no-reboot ends QEMU.
        "reboot=t",
        "panic=-1",
        "random.trust_cpu=on",
        // Nothing uses them in a VM of one command; they cost 0.3 s.
        "apparmor=0",
        "lsm=capability",
        "audit=0",
    ]
    .map(str::to_owned)
    .into();
    words.push(format!("{}{}", boot::STREAM, boot::SERIAL));
    if let Accelerator::Tcg { tsc_khz } = accelerator {
        // Emulated timers are late under load, so a kernel that calibrates
        // its clock or tests its timer hangs more often than not: tell it.
        words.extend(["no_timer_check".into(), "tsc=reliable".into()]);
        words.push(format!("tsc_early_khz={tsc_khz}"));
    }
    if spec.interface {
        words.push(INTERFACE.into());
    }
    words.extend(spec.kernel_args.iter().cloned());
    words.join(" ")
}

/// A path inside a QEMU option: commas are doubled.
fn escaped(path: &std::path::Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

#[derive(Default)]
struct Line(Vec<std::ffi::OsString>);

impl Line {
    fn one(&mut self, word: impl Into<std::ffi::OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn two(&mut self, option: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.one(option).one(value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk;

    fn line(accelerator: Accelerator) -> String {
        line_with(accelerator, Memory::Fresh)
    }

    fn line_with(accelerator: Accelerator, memory: Memory<'_>) -> String {
        line_of(accelerator, memory, None)
    }

    fn line_of(accelerator: Accelerator, memory: Memory<'_>, interface: Option<RawFd>) -> String {
        let spec = MachineSpec {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            cpus: 2,
            memory_mib: 512,
            disks: vec![
                Disk { path: "/a,b.ext4".into(), read_only: true },
                Disk { path: "/own".into(), read_only: false },
            ],
            interface: interface.is_some(),
            kernel_args: vec!["extra=1".into()],
        };
        let fds = Fds { console: 3, stream: Some(4), qmp: 5, interface };
        let words = arguments(&spec, "fireclaw-0", accelerator, memory, fds);
        words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn emulation_tells_the_kernel_its_clock_rate() {
        let tcg = line(Accelerator::Tcg { tsc_khz: 2_596_122 });
        assert!(tcg.contains("tsc_early_khz=2596122") && tcg.contains("-accel tcg"), "{tcg}");
        let kvm = line(Accelerator::Kvm);
        assert!(!kvm.contains("tsc") && kvm.contains("-accel kvm -cpu host"), "{kvm}");
    }

    #[test]
    fn clones_map_memory_privately() {
        let directory = std::path::Path::new("/s");
        let saved = line_with(Accelerator::Kvm, Memory::SavedTo(directory));
        assert!(saved.contains("share=on,mem-path=/s/memory") && !saved.contains("-incoming"));
        let restored = line_with(Accelerator::Kvm, Memory::RestoredFrom(directory));
        assert!(restored.contains("share=off,mem-path=/s/memory"), "{restored}");
        assert!(restored.contains("-incoming defer"), "{restored}");
    }

    #[test]
    fn a_card_is_the_same_whether_saved_or_restored() {
        let of = |memory, interface| line_of(Accelerator::Kvm, memory, interface);
        let interface = |fd| {
            format!(
                "-netdev tap,id=interface,fd={fd} \
                 -device virtio-net-device,netdev=interface,mac=02:fc:00:00:00:00"
            )
        };
        let saved = of(Memory::SavedTo(std::path::Path::new("/s")), Some(7));
        assert!(saved.contains(&interface(7)) && saved.contains(" fireclaw.interface "), "{saved}");
        let restored = of(Memory::RestoredFrom(std::path::Path::new("/s")), Some(9));
        assert!(restored.contains(&interface(9)), "{restored}");
        let without = of(Memory::Fresh, None);
        assert!(!without.contains("net") && !without.contains("interface"), "{without}");
    }

    #[test]
    fn a_disk_is_flushed_and_its_errors_are_the_guests() {
        let line = line(Accelerator::Kvm);
        let own = "format=raw,cache=writeback,read-only=off,file=/own \
                   -device virtio-blk-device,drive=disk1,rerror=report,werror=report";
        assert!(line.contains(own) && !line.contains("unsafe"), "{line}");
    }

    #[test]
    fn a_comma_in_a_path_is_not_an_option() {
        assert!(line(Accelerator::Kvm).contains("file=/a,,b.ext4"));
    }

    #[test]
    fn qemu_is_confined_and_has_no_default_devices() {
        let line = line(Accelerator::Kvm);
        assert!(line.contains("-sandbox on") && line.contains("-nodefaults"), "{line}");
        assert!(line.contains("-name fireclaw-0 ") && line.contains("read-only=on"), "{line}");
    }
}
