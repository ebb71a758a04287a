//! The overseer as a service: what it tells systemd, and its unit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Done, Home, finish, signal, timeout, wait};

/// The socket of a service manager (sd_notify(3)).
struct Manager(UnixDatagram);

impl Manager {
    /// Waits until these words come on a line of their own; all lines before, and it.
    #[track_caller]
    fn hears(&self, words: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut message = [0; 4096];
        loop {
            let length = match self.0.recv(&mut message) {
                Ok(length) => length,
                Err(e) => panic!("no {words:?} in {lines:?}: {e}"),
            };
            lines.extend(str::from_utf8(&message[..length]).unwrap().lines().map(str::to_owned));
            if lines.iter().any(|line| line == words) {
                return lines;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told_when_it_serves_and_that_it_is_well() {
    let home = Home::new();
    let socket = home.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    manager.0.set_read_timeout(Some(timeout())).unwrap();
    let mut overseer = home.fireclaw(["overseer", "--port", "0"]);
    overseer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Half of it is how often the overseer says that it is well.
    overseer.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
    let mut overseer = overseer.spawn().unwrap();

    let said = manager.hears("READY=1");
    assert!(!said.iter().any(|line| line == "WATCHDOG=1"), "{said:?}");
    assert!(said.contains(&"STATUS=agents: 0, of them ready: 0; VMs: 0".to_owned()));
    // It is ready: whoever asks is answered.
    finish(home.fireclaw(["agent", "ls"]), Vec::new(), timeout()).exits(0);
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    signal(&overseer, Signal::TERM);
    manager.hears("STOPPING=1");
    assert!(wait(&mut overseer, timeout()).success());
    home.is_clean();
}

/// `fireclaw overseer` as a user who has no service manager.
fn overseer(home: &Home, words: &[&str]) -> Done {
    let mut command = home.fireclaw(["overseer"]);
    command.args(words).env("XDG_CONFIG_HOME", home.path().join("config"));
    command.env("XDG_RUNTIME_DIR", home.path()).env("FIRECLAW_IRC_PASSWORD", "s3cret");
    finish(command, Vec::new(), timeout())
}

/// Has systemd itself read a unit, where it is installed.
#[track_caller]
fn verify(unit: &Path, scope: &str) {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", scope]).arg(unit).stdin(Stdio::null());
    analyze.env("XDG_RUNTIME_DIR", unit.parent().unwrap());
    match analyze.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        verified => {
            let verified = verified.unwrap();
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert!(verified.status.success(), "{said}");
            // What it does not understand it ignores, and says so.
            assert!(!said.contains("fireclaw-overseer.service:"), "{said}");
        }
    }
}

#[test]
fn a_unit_is_written_once_and_removed() {
    let home = Home::new();
    let unit = home.path().join("config/systemd/user/fireclaw-overseer.service");
    let words = [
        "install",
        "--user",
        "--server",
        "irc.example.org",
        "--channel",
        "#a b",
        "--owner",
        "ann!*@%h$x",
    ];
    overseer(&home, &words)
        .exits(0)
        .says(&["FIRECLAW_IRC_PASSWORD is set here", "systemctl --user enable --now"]);
    let text = fs::read_to_string(&unit).unwrap();
    let start = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let end = r##" overseer --server=irc.example.org "--channel=#a b" "--owner=ann!*@%%h$x""##;
    assert!(start.starts_with("ExecStart=:/") && start.ends_with(end), "{start}");
    assert!(text.contains(&format!("Environment=FIRECLAW_HOME={}\n", home.path().display())));
    assert!(!text.contains("s3cret"));
    verify(&unit, "--user");
    // Our own is replaced.
    let secrets = home.path().join("config/fireclaw/overseer.env");
    fs::create_dir(secrets.parent().unwrap()).unwrap();
    fs::write(&secrets, "").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o640)).unwrap();
    overseer(&home, &["install", "--user"]).exits(0).says(&["other users can read"]);
    assert_ne!(fs::read_to_string(&unit).unwrap(), text);
    overseer(&home, &["uninstall", "--user"]).exits(0).says(&["agent VMs keep running"]);
    assert!(!unit.exists());
    overseer(&home, &["uninstall", "--user"]).exits(1).says(&["there is no"]);
    // Somebody else's is not, unless that is asked for.
    fs::write(&unit, "[Service]\n").unwrap();
    for action in ["install", "uninstall"] {
        overseer(&home, &[action, "--user"])
            .exits(1)
            .says(&["written by somebody else", "--force"]);
        assert_eq!(fs::read_to_string(&unit).unwrap(), "[Service]\n");
    }
    overseer(&home, &["install", "--user", "--force"]).exits(0);
    assert_ne!(fs::read_to_string(&unit).unwrap(), "[Service]\n");
}

#[test]
fn a_unit_can_be_looked_at_first() {
    let home = Home::empty();
    let printed = overseer(&home, &["install", "--print", "--system", "--local-model"]).exits(0);
    let unit = home.path().join("fireclaw-overseer.service");
    fs::write(&unit, &printed.stdout).unwrap();
    assert!(printed.stdout().contains("WantedBy=multi-user.target"));
    // Restart=on-failure alone would go on for ever.
    let (head, _) =
        printed.stdout().split_once("[Service]").map(|(a, b)| (a.to_owned(), b.len())).unwrap();
    assert!(head.contains("\nStartLimitIntervalSec=10min\nStartLimitBurst=10\n"), "{head}");
    verify(&unit, "--system");
    let user = overseer(&home, &["install", "--print", "--user"]).exits(0).stdout();
    assert!(user.contains("WantedBy=default.target"), "{user}");
    assert!(!home.path().join("config").exists());
    let password =
        ["install", "--user", "--print", "--model-server", "http://ann:s3cret@127.0.0.1"];
    overseer(&home, &password).exits(2).says(&["the unit would expose", "overseer.env"]);
    overseer(&home, &["--tls", "install"]).exits(2);
    overseer(&home, &["install", "--print", "--owner", "a b!*@x"]).exits(2).says(&["--owner"]);
}
