//! Taps: network devices whose other end is a descriptor.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::{Error, Result};

/// Makes a tap, or opens one that is there, with the header that virtio puts before each
/// frame (`tun.h`, `IFF_VNET_HDR`). It goes with its last descriptor.
pub(crate) fn open(name: &str) -> Result<OwnedFd> {
    let failed = || Error::device::<std::io::Error>(format!("making the tap {name}"));
    let file = File::options().read(true).write(true).open("/dev/net/tun").map_err(failed())?;
    set(&file, name).map_err(failed())?;
    Ok(file.into())
}

/// Keeps a tap without a descriptor, for the one user who may open it by name.
pub(crate) fn keep(tap: &OwnedFd, user: u32) -> Result<()> {
    let value = |request, value: libc::c_ulong| {
        set_value(tap, request, value).map_err(Error::system("keeping the tap"))
    };
    // Without an owner it is everybody's who may open /dev/net/tun, and that is everybody.
    value(libc::TUNSETOWNER, user.into())?;
    value(libc::TUNSETPERSIST, 1)
}

#[allow(unsafe_code)]
fn set(file: &File, name: &str) -> std::io::Result<()> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: ifreq is plain data for which all-zero is valid; the name is shorter than its
    // field, so NUL-terminated; the ioctl gets a live descriptor and a valid pointer.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &request)
    };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn set_value(tap: &OwnedFd, request: libc::Ioctl, value: libc::c_ulong) -> std::io::Result<()> {
    // SAFETY: these requests take a number and touch no memory of ours.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), request, value) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
