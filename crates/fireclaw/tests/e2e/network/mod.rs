//! VMs with a network interface, on a host in namespaces with an internet of its own:
//! nothing of it is outside this host, and all of it goes with the test.

mod check;
mod clean;
mod clones;
mod jail;
mod matrix;
mod mistakes;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdout, Command, Stdio};

use fireclaw_netlab::{CONFIG, Lab};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Done, Home, alone, binary, finish, shared_home, signal, timeout, wait, wait_until,
};

/// The host's address on the bridge.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// Who runs `fireclaw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Root: one bridge on the host.
    Root,
    /// A user without any right: namespaces of each VM's own.
    User,
}

const BOTH: [Who; 2] = [Who::Root, Who::User];

/// A host on which VMs run.
struct Host {
    lab: Lab,
    home: Home,
}

/// Runs a test on a host of its own.
fn on_a_host(test: &str, work: impl FnOnce(&Host)) {
    // Before the lab, which has no way to a mirror.
    shared_home();
    let _alone = alone();
    let Some(lab) = fireclaw_netlab::enter(test) else { return };
    let home = Home::new();
    fs::write(home.path().join("network.toml"), CONFIG).unwrap();
    work(&Host { lab, home });
}

impl Host {
    /// The command, as somebody.
    fn fireclaw(&self, who: Who, arguments: &[&str]) -> Command {
        let as_it_is = self.home.fireclaw(arguments);
        if who == Who::Root {
            return as_it_is;
        }
        let mut command = Command::new("unshare");
        // A number that is not root's loses every capability as it starts a program.
        command.args(["--user", "--map-user=1000", "--map-group=1000"]).arg(binary());
        command.args(arguments);
        command.envs(as_it_is.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// `fireclaw run` to its end.
    fn run(&self, who: Who, policy: &str, arguments: &[&str], stdin: &str) -> Done {
        let mut all = vec!["run", "--timeout", "170", "--network", policy];
        all.extend(arguments);
        finish(self.fireclaw(who, &all), stdin.into(), timeout())
    }

    /// Another command to its end.
    fn command(&self, who: Who, arguments: &[&str]) -> Done {
        finish(self.fireclaw(who, arguments), Vec::new(), timeout())
    }

    /// Starts a VM, up to the line `up` of its command.
    fn start(&self, who: Who, policy: &str, line: &str) -> Machine {
        self.start_with(who, policy, &[], line)
    }

    /// The same, with more options.
    fn start_with(&self, who: Who, policy: &str, options: &[&str], line: &str) -> Machine {
        let mut all = vec!["run", "-n", "--timeout", "170", "--network", policy];
        all.extend(options);
        all.push(line);
        let mut run = self.fireclaw(who, &all);
        run.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = run.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut up = String::new();
        output.read_line(&mut up).unwrap();
        assert_eq!(up, "up\n");
        Machine { child, output }
    }

    /// What `fireclaw net ls` says of all VMs with an interface.
    fn list(&self, who: Who) -> Vec<Value> {
        let listed = self.command(who, &["net", "ls", "--json"]).exits(0);
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    /// Asserts that nothing of any VM is left, or comes to be left in a while.
    #[track_caller]
    fn is_clean(&self, who: Who) {
        wait_until("nothing to be left", || self.left().is_empty() && self.list(who).is_empty());
        let cleaned = self.command(who, &["net", "prune"]).exits(0);
        assert_eq!(cleaned.stdout(), "nothing to remove\n");
        assert_eq!(self.left(), Vec::<String>::new());
    }

    /// What a VM leaves: devices, addresses, rules, namespaces and processes.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let show = |program: &str, arguments: &[&str]| fireclaw_netlab::run(program, arguments);
        let links = show("ip", &["-o", "link"]) + &show("ip", &["-o", "address"]);
        let ours = |line: &&str| line.contains("fc-") || line.contains("fcbr0");
        left.extend(links.lines().filter(ours).map(str::to_owned));
        let tables = show("nft", &["list", "tables"]);
        let ours =
            |line: &&str| *line == "table inet fireclaw" || line.starts_with("table netdev fc-");
        left.extend(tables.lines().filter(ours).map(str::to_owned));
        left.extend(crate::harness::processes_mentioning(&self.home.path().to_string_lossy()));
        left
    }
}

/// A VM that runs.
struct Machine {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Machine {
    /// Ends it, and waits until it has ended.
    fn end(mut self) {
        if self.child.try_wait().unwrap().is_none() {
            signal(&self.child, Signal::TERM);
        }
        wait(&mut self.child, timeout());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of the only VM in a list.
fn address(list: &[Value]) -> Ipv4Addr {
    let [one] = list else { panic!("{list:?}") };
    one["address"].as_str().unwrap().parse().unwrap()
}
