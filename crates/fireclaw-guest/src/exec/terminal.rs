//! The terminal of a command: a pseudoterminal (pty(7)), whose other side the host has.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use fireclaw_protocol::message::TerminalSize;
use fireclaw_protocol::session::Channel;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    InputModes, OptionalActions, SpecialCodeIndex, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use super::pump::{BUFFER, Coming};

/// The host's side of a terminal.
#[derive(Debug)]
pub struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// A new one of this size, with the command's side. Who has that side is told by no more
    /// than one descriptor, so the last to close it ends the terminal.
    #[allow(unsafe_code)]
    pub fn open(size: TerminalSize) -> io::Result<(Rc<Self>, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let host = openpt(flags)?;
        unlockpt(&host)?;
        let command = ioctl_tiocgptpeer(&host, flags)?;
        // A backspace takes a whole character.
        let mut modes = tcgetattr(&command)?;
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&command, OptionalActions::Now, &modes)?;
        rustix::io::ioctl_fionbio(&host, true)?;
        // SAFETY: the descriptor is open and stays the same; nothing closes it while the
        // AsyncFd owns it.
        let terminal = Self(unsafe { AsyncFd::register(host)? });
        terminal.resize(size);
        Ok((Rc::new(terminal), command))
    }

    /// Has the size; those in the foreground are told (SIGWINCH).
    pub fn resize(&self, size: TerminalSize) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = tcsetwinsize(self.0.get_ref(), size);
    }

    /// Types what the host sends. Its end is typed as the character for that.
    pub async fn feed(self: Rc<Self>, channel: Coming) {
        let Some(channel) = channel else { return };
        let Ok(mut channel) = channel.await else { return };
        let mut buffer = vec![0; BUFFER];
        while let Ok(n) = channel.read(&mut buffer).await {
            if n == 0 {
                return self.type_end().await;
            }
            if self.type_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    }

    /// Copies what is shown to the host, then ends the channel.
    pub async fn drain(self: Rc<Self>, channel: Coming) {
        let Some(channel) = channel else { return };
        let Ok(mut channel) = channel.await else { return };
        if self.copy_to(&mut channel).await.is_ok() {
            let _ = channel.shutdown().await;
        }
    }

    async fn copy_to(&self, channel: &mut Channel) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = self.show(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            channel.write_all(&buffer[..n]).await?;
            channel.flush().await?;
        }
    }

    /// Reads what is shown; 0 once nobody has the command's side.
    pub async fn show(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut *buffer)?);
        match self.0.async_io(Interest::READABLE, read).await {
            Err(e) if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            read => read,
        }
    }

    /// Types it.
    pub async fn type_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
            let n = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Types the character that stands for the end of the input.
    pub async fn type_end(&self) {
        let _ = self.type_all(&[self.end_of_file()]).await;
    }

    fn end_of_file(&self) -> u8 {
        const USUAL: u8 = 4;
        tcgetattr(self.0.get_ref())
            .map_or(USUAL, |modes| modes.special_codes[SpecialCodeIndex::VEOF])
    }
}

#[cfg(test)]
mod tests {
    use rustix::termios::tcgetwinsize;

    use super::*;

    #[tokio::test]
    async fn it_has_a_size_and_what_is_typed_and_shown_passes() {
        let (host, command) = Terminal::open(TerminalSize { rows: 40, columns: 100 }).unwrap();
        let size = || tcgetwinsize(&command).map(|size| (size.ws_row, size.ws_col)).unwrap();
        assert_eq!(size(), (40, 100));
        host.resize(TerminalSize { rows: 24, columns: 80 });
        assert_eq!(size(), (24, 80));

        host.type_all("stra\u{df}e\u{7f}n\n".as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        let n = rustix::io::read(&command, &mut buffer).unwrap();
        assert_eq!(&buffer[..n], "stra\u{df}n\n".as_bytes());
        host.type_all(&[host.end_of_file()]).await.unwrap();
        assert_eq!(rustix::io::read(&command, &mut buffer).unwrap(), 0);

        // The echo of what was typed comes first.
        rustix::io::write(&command, b"last words\n").unwrap();
        drop(command);
        let mut shown = Vec::new();
        while let n @ 1.. = host.show(&mut buffer).await.unwrap() {
            shown.extend(&buffer[..n]);
        }
        assert!(shown.ends_with(b"last words\r\n"), "{}", String::from_utf8_lossy(&shown));
    }
}
