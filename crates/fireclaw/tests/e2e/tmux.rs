//! A terminal with a shell, as a person has it: in tmux.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{self, Home, wait_until};

/// A shell of ours in tmux, 100 characters wide and 30 lines high.
pub struct Tmux {
    directory: tempfile::TempDir,
}

impl Tmux {
    pub fn start(home: &Home) -> Self {
        let tmux = Self { directory: tempfile::tempdir().unwrap() };
        let shell = "env PS1='host> ' ENV= sh";
        let started = tmux
            .command()
            .args(["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", shell])
            .env("FIRECLAW_HOME", home.path())
            .env("fireclaw", harness::binary())
            .status();
        assert!(started.unwrap().success());
        tmux.prompts("host>");
        tmux
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("tmux")
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.socket()).env("LANG", "C.UTF-8").env_remove("TMUX");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        let done = self.command().args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    /// Presses a key, by tmux's name.
    pub fn key(&self, name: &str) {
        self.run(&["send-keys", name]);
    }

    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-J", "-S", "-200"])
    }

    /// Waits until this is a line of the screen.
    pub fn shows(&self, line: &str) {
        self.until(line, |lines| lines.contains(&line));
    }

    /// Waits until this is its last line. What is typed before, a program may throw away as it
    /// sets the terminal up.
    pub fn prompts(&self, prompt: &str) {
        self.until(prompt, |lines| lines.last() == Some(&prompt));
    }

    pub fn until(&self, what: &str, holds: impl Fn(&[&str]) -> bool) {
        let shown = std::panic::AssertUnwindSafe(|| {
            wait_until(what, || {
                let screen = self.screen();
                let lines = screen.trim_end().lines().map(str::trim_end);
                holds(&lines.collect::<Vec<_>>())
            });
        });
        if let Err(panic) = std::panic::catch_unwind(shown) {
            println!("the screen:\n{}", self.screen());
            std::panic::resume_unwind(panic);
        }
    }

    /// At the guest's prompt: another size is told, and Ctrl-C ends what runs there, not the
    /// shell, and nothing of ours.
    pub fn has_size_and_ctrl_c(&self) {
        self.run(&["resize-window", "-x", "77", "-y", "22"]);
        self.line("stty size");
        self.shows("22 77");
        self.prompts("guest>");
        // Not `(echo waits; sleep 1000)`: bash can lose a signal between fork and exec.
        self.line("sh -c 'echo waits; exec sleep 1000'");
        self.shows("waits");
        self.key("C-c");
        self.prompts("guest>");
    }

    /// The run that the shell has started, and its VMM.
    pub fn run_and_vmm(&self) -> (i32, i32) {
        let shell = self.run(&["list-panes", "-F", "#{pane_pid}"]).trim().parse().unwrap();
        let run = harness::processes_below(shell, "run")[0];
        (run, harness::processes_below(run, "fireclaw-")[0])
    }

    /// Runs a line in the host's shell that shows one word.
    pub fn says(&self, line: &str) -> String {
        self.prompts("host>");
        self.line(&format!("clear; echo \"<$({line})>\""));
        let mut said = None;
        wait_until(line, || {
            let screen = self.screen();
            said = screen.lines().find_map(|one| {
                Some(one.trim_end().strip_prefix('<')?.strip_suffix('>')?.to_owned())
            });
            said.is_some()
        });
        self.run(&["clear-history"]);
        said.unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}
