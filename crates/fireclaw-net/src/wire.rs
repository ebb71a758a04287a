//! Messages between our own processes, with descriptors: JSON after its length.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message: ten thousand allowed and as many denied names, each of 255 bytes.
const MAX: usize = 8 << 20;
/// The most descriptors with one message.
const DESCRIPTORS: usize = 4;

/// Sends a message, and descriptors with it.
pub(crate) fn send(
    mut stream: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(std::io::Error::other)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    // Four bytes go at once or not at all.
    sendmsg(stream.as_fd(), &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    stream.write_all(&body)
}

/// Receives a message and its descriptors; none at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(
    mut stream: &UnixStream,
) -> std::io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut length)];
    let received = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(stream.as_fd(), &mut buffers, &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    stream.read_exact(&mut length[received.bytes..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX {
        return Err(std::io::Error::other("a message is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_carry_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"there").unwrap();
        send(&a, &"take this", &[file.as_fd()]).unwrap();
        send(&a, &7, &[]).unwrap();
        drop(a);
        let (text, descriptors): (String, _) = receive(&b).unwrap().unwrap();
        assert_eq!((&text[..], descriptors.len()), ("take this", 1));
        let mut got = [0; 5];
        rustix::io::pread(&descriptors[0], &mut got, 0).unwrap();
        assert_eq!(&got, b"there");
        let (number, descriptors): (u32, _) = receive(&b).unwrap().unwrap();
        assert_eq!((number, descriptors.len()), (7, 0));
        assert!(receive::<u32>(&b).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_or_cut_is_an_error() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(receive::<u32>(&b).is_err());
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[9, 0]).unwrap();
        drop(a);
        assert!(receive::<u32>(&b).is_err());
    }
}
