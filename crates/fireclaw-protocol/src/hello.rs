//! The handshake that begins a session, on the bare stream.
//!
//! Each hello is eight bytes of [`MAGIC`] and one [`crate::frame`].

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Error, GENERATION, OLDEST_GUEST, Result, frame};

/// What every hello starts with, so that a stream in disorder is seen at once.
pub const MAGIC: [u8; 8] = *b"FIRECLAW";

/// The longest text in a hello, in bytes.
const MAX_TEXT: usize = 256;

/// The guest says that it is up: the first bytes of a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GuestHello {
    /// The guest's protocol generation.
    #[n(0)]
    pub generation: u32,
    /// The guest program's version.
    #[n(1)]
    pub version: String,
    /// The guest kernel's release, as `uname -r` gives it. Untrusted text.
    #[n(2)]
    pub kernel: String,
    /// Microseconds from the guest kernel's start to the start of `/init`.
    #[n(3)]
    pub kernel_us: u64,
    /// Microseconds from there to this hello: modules and mounts.
    #[n(4)]
    pub init_us: u64,
}

/// The host's answer: who this guest is from now on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HostHello {
    /// The host's protocol generation.
    #[n(0)]
    pub generation: u32,
    /// What the guest must take on before it confirms.
    #[n(1)]
    pub identity: Identity,
}

/// What makes one guest different from all others, renewed with every session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The host's wall clock: nanoseconds since the Unix epoch.
    #[n(0)]
    pub wall_clock_ns: u64,
    /// Fresh random bytes for the kernel's generator, at least 32.
    #[n(1)]
    pub entropy: ByteVec,
    /// The host name: 1 to 64 bytes (`sethostname(2)`).
    #[n(2)]
    pub hostname: String,
    /// The 128 bits of `/etc/machine-id` (`machine-id(5)`).
    #[n(3)]
    pub machine_id: ByteArray<16>,
}

/// The guest has taken on its identity, or says why it could not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ready {
    /// What could not be set, if anything. Untrusted text.
    #[n(0)]
    pub problem: Option<String>,
}

/// Writes a hello with its magic.
pub async fn write<W, M>(writer: &mut W, hello: &M) -> Result<()>
where
    W: AsyncWrite + Unpin,
    M: Encode<()>,
{
    let mut bytes = MAGIC.to_vec();
    bytes.extend(frame::encode(hello));
    writer.write_all(&bytes).await?;
    writer.flush().await?;
    Ok(())
}

/// Reads a hello of at most `max` bytes.
pub async fn read<R, M>(reader: &mut R, max: usize) -> Result<M>
where
    R: AsyncRead + Unpin,
    M: for<'b> Decode<'b, ()>,
{
    let mut magic = [0; 8];
    reader.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(Error::violation("a hello without its magic"));
    }
    frame::read(reader, max).await?.ok_or(Error::Closed)
}

/// The host's half of the handshake, up to the point where commands may start.
///
/// `identity` is called only after the guest has spoken, so that the clock it
/// carries is fresh.
pub async fn greet_guest<S>(
    stream: &mut S,
    identity: impl FnOnce() -> Identity,
) -> Result<GuestHello>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = meet_guest(stream).await?;
    settle_guest(stream, identity()).await?;
    Ok(hello)
}

/// The first part of [`greet_guest`]: waits for the guest's hello.
///
/// Between the two parts the guest waits and nothing is under way in either
/// direction: the moment for a snapshot.
pub async fn meet_guest<S>(stream: &mut S) -> Result<GuestHello>
where
    S: AsyncRead + Unpin,
{
    let hello: GuestHello = read(stream, frame::MAX_FROM_GUEST).await?;
    if !(OLDEST_GUEST..=GENERATION).contains(&hello.generation) {
        return Err(Error::Generation { theirs: hello.generation });
    }
    if hello.version.len() > MAX_TEXT || hello.kernel.len() > MAX_TEXT {
        return Err(Error::violation("an overlong text in the guest's hello"));
    }
    Ok(hello)
}

/// The second part of [`greet_guest`], also for a guest that said hello before
/// a snapshot was taken of it.
pub async fn settle_guest<S>(stream: &mut S, identity: Identity) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write(stream, &HostHello { generation: GENERATION, identity }).await?;
    let ready: Ready = read(stream, frame::MAX_FROM_GUEST).await?;
    match ready.problem {
        None => Ok(()),
        Some(problem) => Err(Error::Violation(format!(
            "the guest could not take on its identity: {}",
            problem.chars().take(MAX_TEXT).collect::<String>().escape_debug()
        ))),
    }
}

/// The guest's half of the handshake: `apply` sets clock, randomness and names.
pub async fn greet_host<S>(
    stream: &mut S,
    hello: &GuestHello,
    apply: impl FnOnce(&Identity) -> std::result::Result<(), String>,
) -> Result<HostHello>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write(stream, hello).await?;
    let host: HostHello = read(stream, frame::MAX_FROM_HOST).await?;
    let problem = apply(&host.identity).err();
    let failed = problem.clone();
    write(stream, &Ready { problem }).await?;
    match failed {
        None => Ok(host),
        Some(problem) => Err(Error::Violation(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(generation: u32) -> GuestHello {
        GuestHello {
            generation,
            version: "0.1.0".into(),
            kernel: "6.1.0".into(),
            kernel_us: 1,
            init_us: 2,
        }
    }

    fn identity() -> Identity {
        Identity {
            wall_clock_ns: 1,
            entropy: vec![0; 32].into(),
            hostname: "h".into(),
            machine_id: [0; 16].into(),
        }
    }

    #[tokio::test]
    async fn both_sides_agree() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        let hello = guest(GENERATION);
        let (a, b) =
            tokio::join!(greet_guest(&mut host, identity), greet_host(&mut vm, &hello, |_| Ok(())));
        assert_eq!(a.unwrap(), hello);
        assert_eq!(b.unwrap().identity, identity());
    }

    #[tokio::test]
    async fn a_guest_from_the_future_is_refused() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        write(&mut vm, &guest(GENERATION + 1)).await.unwrap();
        let got = greet_guest(&mut host, identity).await;
        assert!(matches!(got, Err(Error::Generation { theirs }) if theirs == GENERATION + 1));
    }

    #[tokio::test]
    async fn a_guest_without_identity_runs_nothing() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        let hello = guest(GENERATION);
        let (a, _) = tokio::join!(
            greet_guest(&mut host, identity),
            greet_host(&mut vm, &hello, |_| Err("no clock\x1b[2J".into()))
        );
        let text = a.unwrap_err().to_string();
        assert!(text.contains("no clock") && !text.contains('\x1b'), "{text}");
    }

    #[tokio::test]
    async fn noise_before_the_magic_is_a_violation() {
        let mut noise = &b"Linux version"[..];
        let got = read::<_, GuestHello>(&mut noise, frame::MAX_FROM_GUEST).await;
        assert!(matches!(got, Err(Error::Violation(_))));
    }
}
