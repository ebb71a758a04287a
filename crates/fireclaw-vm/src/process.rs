//! The VMM as a process: it never outlives its owner, unless it is detached.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use fireclaw_host::{Child, ProcessStamp, on_starter};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest};
use tokio::net::UnixStream;
use tokio::process::{ChildStderr, ChildStdout};

use crate::console::ConsoleTail;
use crate::lease::Lease;
use crate::{Error, Namespace, Result};

/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 20;

/// The same of what the VMM itself said.
const OWN_LINES: usize = 10;

/// A VMM that this process owns and will kill, at the latest when dropped. One
/// that is detached is killed only when asked to.
#[derive(Debug)]
pub struct VmmProcess(Kind);

#[derive(Debug)]
enum Kind {
    Started(Started),
    Detached(Detached),
    Leased(Lease),
}

/// A process that outlives this one, started by it or by one before it.
#[derive(Debug)]
struct Detached {
    stamp: ProcessStamp,
    pidfd: AsyncFd<OwnedFd>,
    /// Empty once the process that started it has gone.
    words: Words,
}

/// A child of this process.
#[derive(Debug)]
struct Started {
    child: Child,
    words: Words,
}

/// The end of what a VMM and its guest said.
#[derive(Debug, Default)]
struct Words {
    stderr: ConsoleTail,
    /// What it logs where its standard error is out of reach.
    log: ConsoleTail,
    console: ConsoleTail,
}

impl Words {
    /// Waits until all that an ended VMM said has been read, for a bounded time.
    async fn drain(&self) {
        self.stderr.drain().await;
        self.log.drain().await;
        self.console.drain().await;
    }

    /// The error for a VMM that ended like this.
    fn death(&self, status: String) -> Error {
        let own = [self.stderr.last_lines(OWN_LINES), self.log.last_lines(OWN_LINES)];
        Error::VmmDied {
            status,
            stderr: own
                .into_iter()
                .filter(|words| !words.is_empty())
                .collect::<Vec<_>>()
                .join("\n"),
            console: self.console.last_lines(CONSOLE_LINES),
        }
    }
}

/// Where a VMM writes what the guest writes to its serial console.
#[derive(Debug)]
pub enum Console {
    /// The VMM's standard output.
    Stdout,
    /// A socket of which the VMM has the other end.
    Socket(UnixStream),
}

impl Console {
    /// The VMM's last words, and its console's.
    fn follow(self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Words {
        let console = match self {
            Self::Stdout => stdout.map(ConsoleTail::follow).unwrap_or_default(),
            Self::Socket(socket) => ConsoleTail::follow(socket),
        };
        let stderr = stderr.map(ConsoleTail::follow).unwrap_or_default();
        Words { stderr, console, log: ConsoleTail::default() }
    }
}

/// A process that would outlive its handle and that nobody has yet: ended if nobody comes.
struct Unclaimed(Option<ProcessStamp>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.and_then(ProcessStamp::pidfd) {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

impl VmmProcess {
    /// Starts `command` so that it dies with this process, even on `kill -9`, and without
    /// holding up the thread that asks.
    ///
    /// # Errors
    /// [`Error::Spawn`]; [`Error::VmmDied`] for a detached one that is gone at once.
    pub async fn start(
        command: std::process::Command,
        inherit: Vec<OwnedFd>,
        console: Console,
        detached: bool,
    ) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let spawned = on_starter(move || {
            let spawned = Self::spawn(command, inherit, console, detached);
            Ok(spawned.map(|process| (Unclaimed(process.stamp()), process)))
        });
        let spawned = spawned.await.map_err(|cause| Error::Spawn { program, cause })?;
        let (mut unclaimed, process) = spawned?;
        unclaimed.0 = None;
        Ok(process)
    }

    /// Starts `command` so that it dies with this process, even on `kill -9`.
    ///
    /// Call it on a thread that lives as long as the process should: the
    /// kernel sends the parent-death signal when the *thread* that forked ends
    /// (`prctl(2)`, `PR_SET_PDEATHSIG`).
    fn spawn(
        mut command: std::process::Command,
        inherit: Vec<OwnedFd>,
        console: Console,
        detached: bool,
    ) -> Result<Self> {
        let program = Path::new(command.get_program())
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        before_exec(&mut command, move || {
            if detached {
                rustix::process::setsid()?;
            }
            for fd in &inherit {
                rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
        let failed = |cause| Error::Spawn { program, cause };
        if detached {
            let mut child = tokio::process::Command::from(command).spawn().map_err(failed)?;
            let words = console.follow(child.stdout.take(), child.stderr.take());
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
            let mut unclaimed = Unclaimed(ProcessStamp::of(pid));
            // Dropping the child leaves its reaping to the runtime.
            let adopted = Self::adopt_with(unclaimed.0, words)?;
            unclaimed.0 = None;
            return Ok(adopted);
        }
        let mut child = Child::spawn(command).map_err(failed)?;
        let words = console.follow(child.stdout(), child.stderr());
        Ok(Self(Kind::Started(Started { child, words })))
    }

    /// A detached VMM that another process started.
    ///
    /// # Errors
    /// [`Error::VmmDied`] if it is no longer there.
    pub fn adopt(stamp: ProcessStamp) -> Result<Self> {
        Self::adopt_with(Some(stamp), Words::default())
    }

    fn adopt_with(stamp: Option<ProcessStamp>, words: Words) -> Result<Self> {
        let opened = stamp.and_then(|stamp| Some((stamp, stamp.pidfd()?)));
        let Some((stamp, pidfd)) = opened else { return Err(words.death(GONE.into())) };
        let pidfd = watch(pidfd).map_err(Error::system("watching the VMM"))?;
        Ok(Self(Kind::Detached(Detached { stamp, pidfd, words })))
    }

    /// Has its last words also be those of a log of its own.
    pub fn logs_to(&mut self, log: impl AsyncRead + Unpin + Send + 'static) {
        match &mut self.0 {
            Kind::Started(Started { words, .. }) | Kind::Detached(Detached { words, .. }) => {
                words.log = ConsoleTail::follow(log);
            }
            Kind::Leased(_) => {}
        }
    }

    /// What tells a detached VMM from any other process.
    pub fn stamp(&self) -> Option<ProcessStamp> {
        match &self.0 {
            Kind::Detached(detached) => Some(detached.stamp),
            Kind::Started(_) | Kind::Leased(_) => None,
        }
    }

    /// Stops a detached VMM with all of its guest, or lets it go on.
    pub fn pause(&self, paused: bool) -> Result<()> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        match &self.0 {
            Kind::Detached(detached) => pidfd_send_signal(detached.pidfd.get_ref(), signal)
                .map_err(|e| Error::system("pausing the VMM")(e.into())),
            Kind::Started(_) | Kind::Leased(_) => Ok(()),
        }
    }

    /// A VMM that runs in a pool and is ours while the lease lasts.
    pub(crate) fn leased(lease: Lease) -> Self {
        Self(Kind::Leased(lease))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Started(started) => started.child.pid(),
            Kind::Detached(detached) => u32::try_from(detached.stamp.pid).ok(),
            Kind::Leased(lease) => Some(lease.pid()),
        }
    }

    /// Resolves when the VMM ends by itself, with how it ended and its last
    /// words ([`Error::VmmDied`]). Cancel-safe.
    pub async fn ended(&mut self) -> Error {
        match &mut self.0 {
            Kind::Started(started) => started.ended().await,
            Kind::Detached(detached) => detached.ended().await,
            Kind::Leased(lease) => lease.ended().await,
        }
    }

    /// The last lines of the guest's console so far, escaped. A pool keeps
    /// those of a leased VMM to itself until it ends.
    pub fn console(&self) -> String {
        match &self.0 {
            Kind::Started(Started { words, .. }) | Kind::Detached(Detached { words, .. }) => {
                words.console.last_lines(CONSOLE_LINES)
            }
            Kind::Leased(_) => String::new(),
        }
    }

    /// Kills the VMM and reaps it; fine if it has ended already. A leased one
    /// goes back to its pool, which does so.
    pub async fn kill(&mut self) -> Result<()> {
        match &mut self.0 {
            Kind::Started(started) => {
                started.child.kill().await.map_err(Error::system("killing the VMM"))
            }
            Kind::Detached(detached) => {
                // It may have ended already.
                let _ = pidfd_send_signal(detached.pidfd.get_ref(), Signal::KILL);
                detached.ended().await;
                Ok(())
            }
            Kind::Leased(lease) => lease.end().await,
        }
    }
}

impl Detached {
    async fn ended(&mut self) -> Error {
        // Readable once it has ended (pidfd_open(2)).
        let _ = self.pidfd.readable().await;
        self.words.drain().await;
        self.words.death(GONE.into())
    }
}

/// The status of a process of which only its end is known.
const GONE: &str = "it is no longer there";

impl Started {
    async fn ended(&mut self) -> Error {
        let status = match self.child.ended().await {
            Ok(status) => status,
            Err(e) => return Error::system("waiting for the VMM")(e),
        };
        self.words.drain().await;
        self.words.death(status)
    }
}

#[allow(unsafe_code)]
fn watch(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned and open, and is neither replaced nor
    // closed while the AsyncFd owns it.
    unsafe { Ok(AsyncFd::register_with_interest(pidfd, Interest::READABLE)?) }
}

/// Has `command` join a network before anything else: before
/// [`VmmProcess::spawn`], because a change of user namespace would undo the
/// parent-death signal (`prctl(2)`, `PR_SET_PDEATHSIG`).
pub(crate) fn join(command: &mut std::process::Command, namespace: &Namespace) -> Result<()> {
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(Error::system("copying a namespace"));
    let user = namespace.user.as_ref().map(copy).transpose()?;
    let net = copy(&namespace.net)?;
    before_exec(command, move || {
        if let Some(user) = &user {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        Ok(move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?)
    });
    Ok(())
}

/// Has `command` take no huge pages: for a clone, whose memory is a snapshot's until it
/// writes. One byte that it writes would else cost it 2 MiB of its own.
pub(crate) fn small_pages(command: &mut std::process::Command) {
    before_exec(command, || {
        // A kernel without huge pages has nothing to disable.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
        Ok(())
    });
}

#[allow(unsafe_code)]
fn before_exec(
    command: &mut std::process::Command,
    hook: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the hook runs between fork and exec, where only async-signal-safe
    // calls are allowed: ours are bare system calls without allocation or locks.
    unsafe {
        command.pre_exec(hook);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn sleeper() -> std::process::Command {
        let mut command = std::process::Command::new("sleep");
        command.arg("600");
        command
    }

    #[tokio::test]
    async fn a_kept_process_outlives_its_handle_and_is_found_again() {
        let detached = VmmProcess::spawn(sleeper(), Vec::new(), Console::Stdout, true).unwrap();
        let stamp = detached.stamp().unwrap();
        drop(detached);
        assert_eq!(ProcessStamp::of(stamp.pid), Some(stamp));
        // Another process under the same number is not taken for it.
        let other = ProcessStamp { start_time: stamp.start_time + 1, ..stamp };
        assert!(matches!(VmmProcess::adopt(other), Err(Error::VmmDied { .. })));

        let mut adopted = VmmProcess::adopt(stamp).unwrap();
        adopted.pause(true).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", stamp.pid)).unwrap();
        while !state().contains(") T") {
            tokio::task::yield_now().await;
        }
        adopted.pause(false).unwrap();
        adopted.kill().await.unwrap();
        assert!(matches!(VmmProcess::adopt(stamp), Err(Error::VmmDied { .. })));
    }

    #[tokio::test]
    async fn a_kept_process_that_nobody_came_for_is_ended() {
        let mut command = sleeper();
        let id = format!("fireclaw-test-{}", std::process::id());
        command.env("FIRECLAW_TEST", &id);
        let mut context = Context::from_waker(Waker::noop());
        // What the thread for it does until then.
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let mut first = Box::pin(on_starter(move || Ok(gone.recv().is_ok())));
        assert!(first.as_mut().poll(&mut context).is_pending());
        let mut start = Box::pin(VmmProcess::start(command, Vec::new(), Console::Stdout, true));
        assert!(start.as_mut().poll(&mut context).is_pending());
        drop(start);
        go.send(()).unwrap();
        // Whatever is started after it finds it started, and gone soon.
        let next = VmmProcess::start(sleeper(), Vec::new(), Console::Stdout, false).await;
        next.unwrap().kill().await.unwrap();
        let runs = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let mut environments =
                processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
            environments.any(|env| env.windows(id.len()).any(|part| part == id.as_bytes()))
        };
        while runs() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn any_other_ends_with_its_handle() {
        let process = VmmProcess::spawn(sleeper(), Vec::new(), Console::Stdout, false).unwrap();
        let pid = i32::try_from(process.pid().unwrap()).unwrap();
        assert!(ProcessStamp::of(pid).is_some() && process.stamp().is_none());
        drop(process);
        assert_eq!(ProcessStamp::of(pid), None);
    }

    #[tokio::test]
    async fn a_network_is_joined_before_the_start() {
        let mut owner = std::process::Command::new("unshare");
        let mut owner = owner.args(["-Urn", "sleep", "600"]).spawn().unwrap();
        let link = |name: &str| {
            std::fs::read_link(format!("/proc/{}/ns/{name}", owner.id())).unwrap_or_default()
        };
        // It has them once it sleeps.
        let comm = || std::fs::read_to_string(format!("/proc/{}/comm", owner.id())).unwrap();
        while comm() != "sleep\n" {
            tokio::task::yield_now().await;
        }
        let open = |name: &str| {
            std::fs::File::open(format!("/proc/{}/ns/{name}", owner.id())).unwrap().into()
        };
        let namespace = Namespace { user: Some(open("user")), net: open("net") };
        let mut command = std::process::Command::new("readlink");
        command.args(["/proc/self/ns/user", "/proc/self/ns/net"]);
        join(&mut command, &namespace).unwrap();
        let mut process = VmmProcess::spawn(command, Vec::new(), Console::Stdout, false).unwrap();
        process.ended().await;
        let expected = format!("{}\n{}", link("user").display(), link("net").display());
        assert_eq!(process.console().trim(), expected);
        assert_ne!(link("net"), std::fs::read_link("/proc/self/ns/net").unwrap());

        // It still dies with its parent, here with the thread that started it.
        let starting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut command = sleeper();
                join(&mut command, &namespace).unwrap();
                let process =
                    VmmProcess::spawn(command, Vec::new(), Console::Stdout, false).unwrap();
                let pid = process.pid().unwrap();
                std::mem::forget(process);
                i32::try_from(pid).unwrap()
            })
        });
        let orphan = starting.join().unwrap();
        while ProcessStamp::of(orphan).is_some() {
            tokio::task::yield_now().await;
        }
        owner.kill().unwrap();
        owner.wait().unwrap();
    }
}
