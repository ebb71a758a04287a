//! The network interface, if this VM has one, and where names are looked up.

mod netlink;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

use fireclaw_protocol::hello::Interface;

use netlink::Netlink;

/// Where the kernel shows the devices of the interface's driver.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_net";

/// `lo`: the kernel makes it first in every network (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

const RESOLVER: &str = "/etc/resolv.conf";
const RESOLVER_NEW: &str = "/etc/.resolv.conf.new";

/// Sets `lo` up, so that programs in the guest can speak with each other.
///
/// A kernel without networking has no `lo`; that is fine.
pub fn loopback_up() {
    let _ = Netlink::open().and_then(|netlink| netlink.set_up(LOOPBACK, None));
}

/// What the interface and the resolver are set to.
#[derive(Debug, Default)]
pub struct Setting(Option<Option<Interface>>);

impl Setting {
    /// Sets both to what the host says: whatever they were set to before is
    /// forgotten. If the host says what it said last, nothing is touched, so
    /// that connections outlive a change of hosts.
    ///
    /// # Errors
    /// What could not be set, in words. Without an interface nothing is an error.
    pub fn take_on(&mut self, interface: Option<&Interface>) -> Result<(), String> {
        if self.0.as_ref().is_some_and(|known| known.as_ref() == interface) {
            return Ok(());
        }
        match (find(), interface) {
            (None, None) => {}
            (None, Some(_)) => {
                return Err("this VM's kernel finds no network interface; \
                            `fireclaw setup` fetches one that does"
                    .into());
            }
            (Some(link), interface) => set(&link, interface)
                .map_err(|(what, e)| format!("cannot {what} of the network interface: {e}"))?,
        }
        let written = write_resolver(interface);
        if interface.is_some() {
            written.map_err(|e| format!("cannot write {RESOLVER}: {e}"))?;
        }
        self.0 = Some(interface.cloned());
        Ok(())
    }
}

/// A link of the kernel's.
struct Link {
    name: String,
    index: u32,
}

/// The interface, whatever its name: an image may rename it.
fn find() -> Option<Link> {
    for device in fs::read_dir(DRIVER).ok()?.flatten() {
        for link in fs::read_dir(device.path().join("net")).into_iter().flatten().flatten() {
            let index = fs::read_to_string(link.path().join("ifindex"));
            if let Ok(index) = index.unwrap_or_default().trim().parse() {
                return Some(Link { name: link.file_name().to_string_lossy().into_owned(), index });
            }
        }
    }
    None
}

fn set(link: &Link, interface: Option<&Interface>) -> Result<(), (&'static str, io::Error)> {
    let step = |what| move |e| (what, e);
    let netlink = Netlink::open().map_err(step("speak with the kernel"))?;
    // Routes and neighbours go with it.
    netlink.set_down(link.index).map_err(step("change the state"))?;
    netlink.remove_addresses(link.index).map_err(step("remove the addresses"))?;
    let Some(interface) = interface else { return Ok(()) };
    without_ipv6(&link.name).map_err(step("switch off the IPv6"))?;
    netlink.set_up(link.index, Some(&interface.mac)).map_err(step("set the hardware address"))?;
    netlink
        .add_address(link.index, interface.address, interface.prefix)
        .map_err(step("set the address"))?;
    netlink.set_default_route(link.index, interface.gateway).map_err(step("set the default route"))
}

/// The network is IPv4's: no addresses or routes from whoever else is on it.
fn without_ipv6(link: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1") {
        // A kernel without IPv6.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Puts a file of our own in the place of whatever the image has there, often a
/// symbolic link to a resolver that does not run.
fn write_resolver(interface: Option<&Interface>) -> io::Result<()> {
    let text = match interface {
        Some(interface) => format!("nameserver {}\n", interface.resolver),
        // Without a name server, 127.0.0.1 is asked (resolv.conf(5)), where
        // nobody listens: a name is refused at once instead of waited for.
        None => "# There is no network interface in this VM.\n".into(),
    };
    fs::create_dir_all("/etc")?;
    let _ = fs::remove_file(RESOLVER_NEW);
    File::create_new(RESOLVER_NEW)?.write_all(text.as_bytes())?;
    fs::rename(RESOLVER_NEW, RESOLVER)
}
