//! The handshake that begins a session, on the bare stream.
//!
//! ```text
//! guest                          host
//! GuestHello            ──▶                    up, waiting
//!                       ◀──  HostHello         who you are; perhaps a command to prepare with
//!   … which is run, and then it says GuestHello again and waits anew
//! Ready                 ──▶                    taken on
//!                       ◀──  Personalized      what time is it? up to four times, each answered
//! Ready                 ──▶                    by another Ready
//!                       ◀──  Personalized      the clock's last correction; commands may come
//! ```
//!
//! Each is eight bytes of [`MAGIC`] and one [`crate::frame`]. A guest that
//! waits has nothing under way in either direction: the moment for a snapshot.

use std::net::Ipv4Addr;
use std::time::Duration;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::message::{ExecRequest, ExitStatus};
use crate::{Error, GENERATION, OLDEST_GUEST, Result, frame};

/// What every hello starts with, so that a stream in disorder is seen at once.
pub const MAGIC: [u8; 8] = *b"FIRECLAW";

/// The longest text in a hello, in bytes.
const MAX_TEXT: usize = 256;

/// How much of what a preparing command wrote is told, in bytes.
pub const MAX_PREPARED_OUTPUT: usize = 4096;

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
    /// How the command ended that [`HostHello::prepare`] asked for.
    #[n(5)]
    pub prepared: Option<Prepared>,
}

/// What became of a command that prepared the VM.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Prepared {
    /// How it ended; absent if it could not be started.
    #[n(0)]
    pub status: Option<ExitStatus>,
    /// The last of its output, or why it could not be started: at most
    /// [`MAX_PREPARED_OUTPUT`] bytes. Untrusted.
    #[n(1)]
    pub output: ByteVec,
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
    /// A command to run first, whose traces in memory and on disk are wanted:
    /// the guest then waits anew and gets another identity.
    #[n(2)]
    pub prepare: Option<ExecRequest>,
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
    /// What its network interface is set to; one that it is not told of stays down.
    /// Since generation 2.
    #[n(4)]
    pub interface: Option<Interface>,
}

/// Who a guest is on its network. IPv4 only: IPv6 is switched off on the interface.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Interface {
    /// The hardware address: not a group's (IEEE 802, the first byte is even).
    #[n(0)]
    pub mac: ByteArray<6>,
    /// The guest's address.
    #[n(1)]
    pub address: Ipv4Addr,
    /// How many leading bits of the address name the network: 0 to 32.
    #[n(2)]
    pub prefix: u8,
    /// The default route, a neighbour in that network.
    #[n(3)]
    pub gateway: Ipv4Addr,
    /// The only name server in `/etc/resolv.conf` (`resolv.conf(5)`).
    #[n(4)]
    pub resolver: Ipv4Addr,
}

/// The guest has taken on its identity, or says why it could not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ready {
    /// What could not be set, if anything. Untrusted text.
    #[n(0)]
    pub problem: Option<String>,
    /// The guest's wall clock as it says this: nanoseconds since the epoch.
    #[n(1)]
    pub wall_clock_ns: u64,
}

/// The host's last word before commands may come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Personalized {
    /// By how many nanoseconds the guest's wall clock goes forward.
    ///
    /// Between the host's clock in [`Identity`] and the guest's setting of it
    /// lies all the work of taking on an identity, which under emulation takes
    /// tens of milliseconds the first time.
    #[n(0)]
    pub clock_step_ns: u64,
    /// Instead, by how many nanoseconds it goes forward, or back if they are negative.
    /// Since generation 3.
    #[n(1)]
    pub clock_offset_ns: Option<i64>,
    /// Whether this is not the last word: the guest says [`Ready`] once more, at once, so
    /// that the host sees how long that takes. Since generation 3.
    #[n(2)]
    pub again: Option<bool>,
}

impl Personalized {
    /// How the guest's clock goes.
    fn offset_ns(&self) -> i64 {
        let step = i64::try_from(self.clock_step_ns).unwrap_or(i64::MAX);
        self.clock_offset_ns.unwrap_or(step)
    }
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
/// `clock` is the wall clock in nanoseconds since the epoch; `identity` is
/// called only after the guest has spoken.
pub async fn greet_guest<S>(
    stream: &mut S,
    identity: impl FnOnce() -> Identity,
    clock: impl Fn() -> u64,
) -> Result<GuestHello>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = meet_guest(stream).await?;
    personalize_guest(stream, identity(), hello.generation, clock).await?;
    Ok(hello)
}

/// The first part of [`greet_guest`]: waits for the guest's hello.
pub async fn meet_guest<S>(stream: &mut S) -> Result<GuestHello>
where
    S: AsyncRead + Unpin,
{
    let hello: GuestHello = read(stream, frame::MAX_FROM_GUEST).await?;
    if !(OLDEST_GUEST..=GENERATION).contains(&hello.generation) {
        return Err(Error::Generation { theirs: hello.generation });
    }
    let overlong = |prepared: &Prepared| prepared.output.len() > MAX_PREPARED_OUTPUT;
    if hello.version.len() > MAX_TEXT
        || hello.kernel.len() > MAX_TEXT
        || hello.prepared.as_ref().is_some_and(overlong)
    {
        return Err(Error::violation("an overlong text in the guest's hello"));
    }
    Ok(hello)
}

/// [`meet_guest`] for a guest whose last host has gone: the rest of what it said
/// to that one may come first, and is skipped.
pub async fn meet_abandoned_guest<S>(stream: &mut S) -> Result<GuestHello>
where
    S: AsyncRead + Unpin,
{
    /// More than any session leaves on the way.
    const MAX_REST: usize = 32 << 20;
    let mut window = [0; 8];
    stream.read_exact(&mut window).await?;
    for _ in 0..MAX_REST {
        if window == MAGIC {
            let mut hello = (&MAGIC[..]).chain(stream);
            return meet_guest(&mut hello).await;
        }
        window.rotate_left(1);
        window[7] = stream.read_u8().await?;
    }
    Err(Error::violation("no hello after the rest of a session"))
}

/// Between the parts of [`greet_guest`], any number of times: has a waiting
/// guest run a command under a passing identity, after which it waits again.
pub async fn prepare_guest<S>(
    stream: &mut S,
    identity: Identity,
    command: ExecRequest,
) -> Result<Prepared>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = HostHello { generation: GENERATION, identity, prepare: Some(command) };
    write(stream, &hello).await?;
    let hello = meet_guest(stream).await?;
    hello.prepared.ok_or_else(|| Error::violation("the guest does not say how it prepared"))
}

/// The second part of [`greet_guest`], also for a guest that said hello before
/// a snapshot was taken of it. `generation` is what the guest speaks.
///
/// Returns how far the guest's clock may be from ours at most, from the round trip that set
/// it; nothing for a guest too old to be asked.
pub async fn personalize_guest<S>(
    stream: &mut S,
    identity: Identity,
    generation: u32,
    clock: impl Fn() -> u64,
) -> Result<Option<Duration>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write(stream, &HostHello { generation: GENERATION, identity, prepare: None }).await?;
    let ready: Ready = read(stream, frame::MAX_FROM_GUEST).await?;
    if let Some(problem) = ready.problem {
        return Err(Error::Violation(format!(
            "the guest could not take on its identity: {}",
            problem
                .chars()
                .take(MAX_TEXT)
                .collect::<String>()
                .escape_debug()
                .to_string()
                .replace("\\'", "'")
        )));
    }
    if generation < 3 {
        // Never back: a clock that is ahead stays so.
        let clock_step_ns = clock().saturating_sub(ready.wall_clock_ns);
        let personalized = Personalized { clock_step_ns, clock_offset_ns: None, again: None };
        write(stream, &personalized).await?;
        return Ok(None);
    }
    let (offset, within) = offset_ns(stream, &clock).await?;
    let personalized =
        Personalized { clock_step_ns: 0, clock_offset_ns: Some(offset), again: None };
    write(stream, &personalized).await?;
    Ok(Some(within))
}

/// How far the guest's clock is behind ours, or ahead if it is negative, and by how much that
/// may be wrong.
///
/// What the guest says was so at some time between our question and its answer; the middle
/// is wrong by half of that at most. Of a few tries the shortest counts: one that was held
/// up, as under emulation or on a busy host, does not.
async fn offset_ns<S>(stream: &mut S, clock: &impl Fn() -> u64) -> Result<(i64, Duration)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// The most tries, and a time that is good enough to be the last.
    const TRIES: usize = 4;
    const GOOD_NS: u64 = 2_000_000;
    let mut best = (u64::MAX, 0);
    for _ in 0..TRIES {
        let asked = clock();
        let again = Personalized { clock_step_ns: 0, clock_offset_ns: None, again: Some(true) };
        write(stream, &again).await?;
        let ready: Ready = read(stream, frame::MAX_FROM_GUEST).await?;
        let took = clock().saturating_sub(asked);
        let middle = i128::from(asked) + i128::from(took / 2);
        let offset = middle - i128::from(ready.wall_clock_ns);
        // A guest that tells nonsense has a clock of nonsense.
        let offset = i64::try_from(offset).unwrap_or_default();
        if took < best.0 {
            best = (took, offset);
        }
        if took <= GOOD_NS {
            break;
        }
    }
    Ok((best.1, Duration::from_nanos(best.0.div_ceil(2))))
}

/// What a guest does during the handshake.
pub trait Personalize {
    /// Sets clock, randomness and names, or says what could not be set.
    fn take_on(&mut self, identity: &Identity) -> std::result::Result<(), String>;
    /// Runs a command to its end.
    fn prepare(&mut self, command: ExecRequest) -> impl Future<Output = Prepared>;
    /// The wall clock: nanoseconds since the epoch.
    fn clock(&self) -> u64;
    /// Sets the wall clock forward by so many nanoseconds, or back if they are negative.
    fn step_clock(&mut self, nanoseconds: i64);
}

/// The guest's half of the handshake.
pub async fn greet_host<S>(
    stream: &mut S,
    hello: &GuestHello,
    guest: &mut impl Personalize,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = hello.clone();
    loop {
        write(stream, &hello).await?;
        let host: HostHello = read(stream, frame::MAX_FROM_HOST).await?;
        let taken_on = guest.take_on(&host.identity);
        if let (Some(command), Ok(())) = (host.prepare, &taken_on) {
            hello.prepared = Some(guest.prepare(command).await);
            continue;
        }
        let problem = taken_on.err();
        write(stream, &Ready { problem: problem.clone(), wall_clock_ns: guest.clock() }).await?;
        if let Some(problem) = problem {
            return Err(Error::Violation(problem));
        }
        loop {
            let personalized: Personalized = read(stream, frame::MAX_FROM_HOST).await?;
            guest.step_clock(personalized.offset_ns());
            if personalized.again != Some(true) {
                return Ok(());
            }
            write(stream, &Ready { problem: None, wall_clock_ns: guest.clock() }).await?;
        }
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
            prepared: None,
        }
    }

    fn identity(wall_clock_ns: u64) -> Identity {
        Identity {
            wall_clock_ns,
            entropy: vec![0; 32].into(),
            hostname: "h".into(),
            machine_id: [0; 16].into(),
            interface: None,
        }
    }

    /// A guest that takes 5 ns to take on an identity.
    #[derive(Default)]
    struct Slow {
        clock: u64,
        prepared: Vec<ExecRequest>,
        problem: Option<String>,
    }

    impl Personalize for Slow {
        fn take_on(&mut self, identity: &Identity) -> std::result::Result<(), String> {
            self.clock = identity.wall_clock_ns;
            self.problem.clone().map_or(Ok(()), Err)
        }

        async fn prepare(&mut self, command: ExecRequest) -> Prepared {
            self.prepared.push(command);
            Prepared { status: Some(ExitStatus::Code(3)), output: b"warm".to_vec().into() }
        }

        fn clock(&self) -> u64 {
            self.clock
        }

        fn step_clock(&mut self, nanoseconds: i64) {
            self.clock = self.clock.saturating_add_signed(nanoseconds);
        }
    }

    #[tokio::test]
    async fn both_sides_agree_and_the_clock_catches_up() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        let (hello, mut slow) = (guest(GENERATION), Slow::default());
        let (a, b) = tokio::join!(
            greet_guest(&mut host, || identity(100), || 105),
            greet_host(&mut vm, &hello, &mut slow)
        );
        assert_eq!(a.unwrap(), hello);
        b.unwrap();
        assert_eq!(slow.clock, 105);
    }

    /// A guest of generation 1, taken over by a newer host, and what it made of
    /// its host's answer: bytes of that time.
    #[tokio::test]
    async fn a_guest_of_the_first_generation_is_understood() {
        let hello = b"FIRECLAW\x13\0\0\0\x86\x01\x650.1.0\x656.1.0\x18\x64\x18\xc8\xf6";
        assert_eq!(
            meet_guest(&mut &hello[..]).await.unwrap(),
            GuestHello { kernel_us: 100, init_us: 200, ..guest(1) }
        );
        let identity = b"\x84\x01\x42\xab\xcd\x61h\x50................";
        let got: Identity = frame::decode(&identity[..]).unwrap();
        assert_eq!((got.wall_clock_ns, got.interface), (1, None));
    }

    #[test]
    fn a_card_survives_the_wire() {
        let interface = Interface {
            mac: [2, 0, 0, 0, 0, 1].into(),
            address: Ipv4Addr::new(172, 16, 0, 2),
            prefix: 24,
            gateway: Ipv4Addr::new(172, 16, 0, 1),
            resolver: Ipv4Addr::new(172, 16, 0, 1),
        };
        let identity = Identity { interface: Some(interface), ..identity(1) };
        let wire = frame::encode(&identity);
        assert_eq!(frame::decode::<Identity>(&wire[4..]).unwrap(), identity);
    }

    #[tokio::test]
    async fn a_guest_prepares_and_waits_anew() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        let (hello, mut slow) = (guest(GENERATION), Slow::default());
        let host_side = async {
            meet_guest(&mut host).await.unwrap();
            let command = ExecRequest { id: 7, ..ExecRequest::default() };
            let prepared = prepare_guest(&mut host, identity(1), command).await.unwrap();
            assert_eq!(prepared.status, Some(ExitStatus::Code(3)));
            assert_eq!(&prepared.output[..], b"warm");
            personalize_guest(&mut host, identity(50), GENERATION, || 49).await.unwrap();
        };
        let ((), b) = tokio::join!(host_side, greet_host(&mut vm, &hello, &mut slow));
        b.unwrap();
        assert_eq!((slow.prepared.len(), slow.prepared[0].id), (1, 7));
        assert_eq!(slow.clock, 49, "a clock that is ahead goes back");
    }

    /// A guest of generation 2 is told to go forward only, and is not asked again.
    #[tokio::test]
    async fn an_older_guest_is_settled_in_its_own_way() {
        for (now, step) in [(130, 30), (90, 0)] {
            let (mut host, mut vm) = tokio::io::duplex(4096);
            let guest = async {
                let _: HostHello = read(&mut vm, frame::MAX_FROM_HOST).await.unwrap();
                write(&mut vm, &Ready { problem: None, wall_clock_ns: 100 }).await.unwrap();
                read::<_, Personalized>(&mut vm, frame::MAX_FROM_HOST).await.unwrap()
            };
            let personalized = personalize_guest(&mut host, identity(1), 2, || now);
            let (personalized, told) = tokio::join!(personalized, guest);
            personalized.unwrap();
            let expected = Personalized { clock_step_ns: step, clock_offset_ns: None, again: None };
            assert_eq!(told, expected);
        }
        // As such a host tells it: an array of one.
        let told: Personalized = frame::decode(&b"\x81\x07"[..]).unwrap();
        assert_eq!((told.offset_ns(), told.again), (7, None));
    }

    /// Times in nanoseconds of paused time, in which nothing else passes.
    #[tokio::test(start_paused = true)]
    async fn the_clock_is_right_though_answers_are_held_up() {
        const START: u64 = 1_000_000_000_000;
        let epoch = tokio::time::Instant::now();
        let host_clock =
            move || START + u64::try_from(epoch.elapsed().as_nanos()).unwrap_or_default();
        // How long each question and each answer is on its way, in milliseconds.
        for ways in [
            &[(45, 204), (3, 60), (4, 4), (80, 1)][..],
            &[(1, 1)],
            &[(30, 30), (40, 20), (90, 90), (10, 10)],
        ] {
            let (mut host, mut vm) = tokio::io::duplex(4096);
            // The guest's clock is this much ahead of the host's.
            let mut ahead: i64 = 0;
            let guest = async {
                let clock = |ahead: i64| host_clock().saturating_add_signed(ahead);
                let wait = |ms| tokio::time::sleep(std::time::Duration::from_millis(ms));
                let hello: HostHello = read(&mut vm, frame::MAX_FROM_HOST).await.unwrap();
                wait(45).await;
                ahead = i64::try_from(hello.identity.wall_clock_ns).unwrap()
                    - i64::try_from(host_clock()).unwrap();
                let mut ways = ways.iter().copied();
                let mut back = 204;
                loop {
                    let wall_clock_ns = clock(ahead);
                    wait(back).await;
                    write(&mut vm, &Ready { problem: None, wall_clock_ns }).await.unwrap();
                    let personalized: Personalized =
                        read(&mut vm, frame::MAX_FROM_HOST).await.unwrap();
                    let Some(true) = personalized.again else {
                        ahead += personalized.offset_ns();
                        return;
                    };
                    let there;
                    (there, back) = ways.next().unwrap();
                    wait(there).await;
                }
            };
            let personalized =
                personalize_guest(&mut host, identity(START), GENERATION, host_clock);
            let (within, ()) = tokio::join!(async { personalized.await.unwrap() }, guest);
            assert!(ahead.unsigned_abs() < 1_000_000, "{ahead} ns ahead with {ways:?}");
            let shortest = ways.iter().map(|(there, back)| there + back).min().unwrap();
            assert_eq!(within.unwrap().as_millis(), u128::from(shortest) / 2, "{ways:?}");
        }
    }

    #[tokio::test]
    async fn a_guest_from_the_future_is_refused() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        write(&mut vm, &guest(GENERATION + 1)).await.unwrap();
        let got = greet_guest(&mut host, || identity(1), || 1).await;
        assert!(matches!(got, Err(Error::Generation { theirs }) if theirs == GENERATION + 1));
    }

    #[tokio::test]
    async fn a_guest_without_identity_runs_nothing() {
        let (mut host, mut vm) = tokio::io::duplex(4096);
        let hello = guest(GENERATION);
        let mut broken = Slow { problem: Some("no clock\x1b[2J".into()), ..Slow::default() };
        let (a, b) = tokio::join!(
            greet_guest(&mut host, || identity(1), || 1),
            greet_host(&mut vm, &hello, &mut broken)
        );
        let text = a.unwrap_err().to_string();
        assert!(text.contains("no clock") && !text.contains('\x1b'), "{text}");
        assert!(b.is_err());
    }

    #[tokio::test]
    async fn the_rest_of_an_earlier_session_is_skipped() {
        let (mut host, mut vm) = tokio::io::duplex(64 * 1024);
        let hello = guest(GENERATION);
        // Even a rest that begins like a hello.
        vm.write_all(b"\0\x01rest FIRECLAFIRECLA").await.unwrap();
        write(&mut vm, &hello).await.unwrap();
        assert_eq!(meet_abandoned_guest(&mut host).await.unwrap(), hello);
        vm.write_all(b"rest and an end").await.unwrap();
        drop(vm);
        assert!(meet_abandoned_guest(&mut host).await.is_err());
    }

    #[tokio::test]
    async fn what_a_preparing_command_says_is_bounded() {
        let (mut host, mut vm) = tokio::io::duplex(64 * 1024);
        let output = vec![b'x'; MAX_PREPARED_OUTPUT + 1].into();
        let prepared = Some(Prepared { status: None, output });
        write(&mut vm, &GuestHello { prepared, ..guest(GENERATION) }).await.unwrap();
        assert!(matches!(meet_guest(&mut host).await, Err(Error::Violation(_))));
    }

    #[tokio::test]
    async fn noise_before_the_magic_is_a_violation() {
        let mut noise = &b"Linux version"[..];
        let got = read::<_, GuestHello>(&mut noise, frame::MAX_FROM_GUEST).await;
        assert!(matches!(got, Err(Error::Violation(_))));
    }
}
