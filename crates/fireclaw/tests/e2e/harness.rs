//! A home for each test, and commands that cannot hang it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The fireclaw binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("FIRECLAW_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_fireclaw").into(), PathBuf::from)
}

/// How many times slower than usual this host is: nested virtualization.
pub fn slowdown() -> u32 {
    let factor = std::env::var("FIRECLAW_TEST_SLOWDOWN").ok().and_then(|f| f.parse().ok());
    factor.unwrap_or(1).max(1)
}

/// No single command of a test may take longer.
pub fn timeout() -> Duration {
    Duration::from_secs(180) * slowdown()
}

/// The home that is set up once for all tests: `FIRECLAW_HOME` if set.
pub fn shared_home() -> &'static Path {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = std::env::var_os("FIRECLAW_HOME")
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("home"), PathBuf::from);
        let mut setup = Command::new(binary());
        setup.arg("setup").env("FIRECLAW_HOME", &home);
        let done = finish(setup, Vec::new(), Duration::from_secs(900));
        assert!(done.status.success(), "set-up failed: {}", done.stderr());
        // What a first run finds out about this host, no test needs to again.
        let mut first = Command::new(binary());
        first.args(["run", "true"]).env("FIRECLAW_HOME", &home);
        finish(first, Vec::new(), timeout()).exits(0);
        home
    })
}

/// The base image that all tests share. One that was made anew has another name.
pub fn base_image() -> PathBuf {
    let home = fireclaw_image::Home::new(shared_home());
    let manifest = fireclaw_image::Manifest::read(&home).unwrap();
    manifest.images[fireclaw_image::Manifest::BASE_IMAGE].rootfs.path(&home)
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Done {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit status, as a shell sees it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts the exit status and shows everything if it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "\nstdout: {}\nstderr: {}", self.stdout(), self.stderr());
        self
    }

    /// Asserts that standard error contains all of these.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr().contains(text), "no {text:?} in: {}", self.stderr());
        }
        self
    }
}

/// A home of a test's own. Everything in it goes with it.
pub struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// A home that is set up: kernel and images are the shared home's.
    pub fn new() -> Self {
        let shared = shared_home();
        let home = Self::empty();
        // What a model of one's own needs is fetched once.
        for name in ["models", "llama"] {
            fs::create_dir_all(shared.join(name)).unwrap();
        }
        for name in ["kernels", "images", "initramfs", "snapshots", "models", "llama"] {
            if shared.join(name).exists() {
                symlink(shared.join(name), home.path().join(name)).unwrap();
            }
        }
        fs::copy(shared.join("manifest.json"), home.path().join("manifest.json")).unwrap();
        fs::create_dir(home.path().join("cache")).unwrap();
        let answers = shared.join("cache/host.json");
        if answers.exists() {
            fs::copy(answers, home.path().join("cache/host.json")).unwrap();
        }
        home
    }

    /// The same for adding images: the shared folder of images is not for writing.
    pub fn with_images_of_its_own() -> Self {
        let home = Self::new();
        let images = home.path().join("images");
        fs::remove_file(&images).unwrap();
        fs::create_dir(&images).unwrap();
        let base = base_image();
        symlink(&base, images.join(base.file_name().unwrap())).unwrap();
        home
    }

    /// A home in which nothing has been set up.
    pub fn empty() -> Self {
        Self { directory: tempfile::Builder::new().prefix("fireclaw-test").tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The command with this home.
    pub fn fireclaw<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("FIRECLAW_HOME", self.path()).env("FIRECLAW_QUIET", "1");
        let temporary = self.path().join("tmp");
        if temporary.is_dir() {
            command.env("TMPDIR", temporary);
        }
        command
    }

    /// `fireclaw run` with these arguments, to its end.
    pub fn run<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Done {
        let mut command = self.fireclaw(["run"]);
        command.args(arguments);
        finish(command, Vec::new(), timeout())
    }

    /// Asserts that nothing runs or lies around under this home.
    #[track_caller]
    pub fn is_clean(&self) {
        wait_until("run directory to be empty", || {
            fs::read_dir(self.path().join("run")).map_or(true, |entries| entries.count() == 0)
        });
        let left = processes_mentioning(&self.path().to_string_lossy());
        assert!(left.is_empty(), "left running: {left:?}");
    }
}

/// Runs a command to its end, feeding it `input`; panics if it takes too long.
pub fn finish(mut command: Command, input: Vec<u8>, limit: Duration) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Ends by itself: the pipe breaks when the child has gone.
    thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    finish_child(child, limit)
}

/// Waits for a started command and collects what it still writes.
pub fn finish_child(mut child: Child, limit: Duration) -> Done {
    let collect = |from: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut from) = from {
                let _ = from.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = collect(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = collect(child.stderr.take().map(|s| Box::new(s) as _));
    let status = wait(&mut child, limit);
    Done { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Waits for a child; kills it and panics when it takes too long.
pub fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {limit:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a condition; panics when it does not come.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if condition() {
            return;
        }
        assert!(start.elapsed() < timeout(), "waited in vain for {what}");
        // Asking may take a whole command: what is waited for gets half of the processor.
        thread::sleep(asked.elapsed().max(Duration::from_millis(5)));
    }
}

/// Sends a signal to a child.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The pids of processes that have `text` in their command line, cwd or
/// environment's FIRECLAW_HOME, apart from this one.
pub fn processes_mentioning(text: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if line.contains(text) || cwd.to_string_lossy().contains(text) {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// The VMM that a child started, once it runs.
pub fn vmm_of(child: &Child) -> i32 {
    process_of(child, "fireclaw-")
}

/// The process that a child started and that has `mark` on its command line,
/// once it runs.
pub fn process_of(child: &Child, mark: &str) -> i32 {
    let mut found = None;
    wait_until(mark, || {
        found = processes_of(child, mark).first().copied();
        found.is_some()
    });
    found.unwrap()
}

/// The processes that a child has started and that have `mark` on their
/// command lines.
pub fn processes_of(child: &Child, mark: &str) -> Vec<i32> {
    processes_below(i32::try_from(child.id()).unwrap(), mark)
}

/// The same of any process.
pub fn processes_below(pid: i32, mark: &str) -> Vec<i32> {
    let of_it = |entry: fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        let parent: i32 = after_name.split_whitespace().nth(1)?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let is_marked = String::from_utf8_lossy(&line).contains(mark);
        (parent == pid && is_marked).then(|| entry.file_name().to_str()?.parse().ok())?
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(of_it).collect()
}

/// The resident memory of a process in KiB; 0 when it is gone.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The processor time of a process in clock ticks (proc(5): user and system).
pub fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n| after_name.split_whitespace().nth(n).and_then(|word| word.parse::<u64>().ok());
    field(11).unwrap_or(0) + field(12).unwrap_or(0)
}

/// Whether a process is there and not a zombie.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

/// Tests that load both processors take turns.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
