//! A run as a job of an interactive shell.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Home, binary, timeout, wait};

/// An interactive shell on a terminal of its own.
struct Shell {
    child: Child,
    keys: ChildStdin,
    pieces: Receiver<Vec<u8>>,
    seen: String,
}

impl Shell {
    fn start(home: &Home) -> Self {
        let mut script = Command::new("script");
        // Without the line editor: what is typed is echoed as it is, and nothing else.
        script.args(["-qec", "bash --norc --noprofile --noediting -i", "/dev/null"]);
        script.env("FIRECLAW_HOME", home.path()).env("F", binary());
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = script.spawn().unwrap();
        let (keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, pieces) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut buffer) {
                if tell.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut shell = Self { child, keys, pieces, seen: String::new() };
        // Its prompt, whoever it is.
        shell.until("bash-");
        shell
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Stops the job in front. The key is pressed again while the shell itself is still in
    /// front: it tells that a job goes to the front before it puts it there.
    fn stops(&mut self) {
        let deadline = Instant::now() + timeout();
        loop {
            self.types("\x1a");
            if self.sees("Stopped", Instant::now() + Duration::from_millis(300)).is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "not stopped: {:?}", self.seen);
        }
    }

    /// Waits for words on the screen after those that were waited for before.
    #[track_caller]
    fn until(&mut self, words: &str) {
        if let Err(e) = self.sees(words, Instant::now() + timeout()) {
            panic!("no {words:?} ({e}) in {:?}", self.seen);
        }
    }

    fn sees(&mut self, words: &str, deadline: Instant) -> Result<(), RecvTimeoutError> {
        loop {
            if let Some(at) = self.seen.find(words) {
                self.seen.drain(..at + words.len());
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.pieces.recv_timeout(left)?;
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
    }
}

#[test]
fn a_run_in_the_background_goes_on_and_reads_what_is_typed_once_it_is_in_front() {
    let home = Home::new();
    let mut shell = Shell::start(&home);
    // One that reads nothing ends by itself.
    shell.types("$F run 'echo o''ne' & wait $!; echo status $?\n");
    shell.until("one");
    shell.until("status 0");
    // One that reads waits for its turn.
    shell.types("$F run 'echo u''p; read x; echo got $x' &\n");
    shell.until("up");
    shell.types("jobs\n");
    shell.until("Running");
    shell.types("fg\n");
    shell.until("fg\r\n");
    shell.until("read x");
    shell.types("hello\n");
    shell.until("got hello");
    // Until it has ended it takes what is typed.
    shell.until("bash-");
    // And one that was stopped by hand while it read goes on behind.
    shell.types("$F run 'echo u''p; read x; echo got $x'\n");
    shell.until("up");
    shell.stops();
    shell.types("bg; jobs\n");
    shell.until("Running");
    shell.types("fg\n");
    shell.until("fg\r\n");
    shell.until("read x");
    // Between those two it may have been refused its read, and hear of it only in front.
    for _ in 0..20 {
        shell.stops();
        shell.types("bg; fg\n");
        shell.until("fg\r\n");
        shell.until("x' &\r\n");
        shell.until("read x");
    }
    shell.types("again\n");
    shell.until("got again");
    shell.until("bash-");
    shell.types("exit\n");
    assert!(wait(&mut shell.child, timeout()).success());
    home.is_clean();
}
