//! Guests with gateways, for tests in the lab.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fireclaw_net::{Gateway, Interface, NetworkMode, Request};
use fireclaw_netlab::matrix::{self, Sides};
use fireclaw_netlab::{CONFIG, TapGuest};
use fireclaw_policy::HostConfig;
use fireclaw_vm::{AttachmentKind, TapAttachment};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fireclaw-gateway");

/// The state of a lab's host; `/run` is the lab's own.
pub const STATE: &str = "/run/fireclaw";

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn request(mode: NetworkMode, policy: &str, directory: &Path) -> Request {
    Request {
        policy: policy.parse().unwrap(),
        config: HostConfig::parse(CONFIG).unwrap(),
        owner: "test".into(),
        directory: directory.into(),
        mode,
        state: STATE.into(),
        attachment: AttachmentKind::Tap,
        user: None,
    }
}

/// Puts something that cannot be started in place of nft; where.
pub fn without_nft() -> String {
    let nft = ["/usr/sbin/nft", "/usr/bin/nft"].into_iter().find(|path| Path::new(path).exists());
    let nft = nft.unwrap().to_owned();
    fireclaw_netlab::run("mount", &["--bind", "/dev/null", &nft]);
    nft
}

/// A guest and its gateway.
pub struct Machine {
    pub guest: TapGuest,
    pub interface: Interface,
    pub gateway: Option<Gateway>,
    pub runtime: tokio::runtime::Runtime,
    pub directory: tempfile::TempDir,
    probe: PathBuf,
}

impl Machine {
    pub fn start(mode: NetworkMode, policy: &str, owner: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let request = Request { owner: owner.into(), ..request(mode, policy, directory.path()) };
        Self::start_with(PROGRAM, &[], directory, request)
    }

    /// Whose gateway another program starts.
    pub fn start_by(program: &str, arguments: &[&str], mode: NetworkMode, policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let request = request(mode, policy, directory.path());
        Self::start_with(program, arguments, directory, request)
    }

    fn start_with(
        program: &str,
        arguments: &[&str],
        directory: tempfile::TempDir,
        request: Request,
    ) -> Self {
        let runtime = runtime();
        let open = fireclaw_net::open(Path::new(program), arguments, request);
        let gateway = runtime.block_on(open).unwrap();
        let TapAttachment::Tap(tap) = gateway.attachment() else { panic!("no tap") };
        let interface = gateway.interface();
        let guest = TapGuest::attachment(tap.try_clone().unwrap(), &interface);
        let probe = directory.path().join("probe.py");
        std::fs::write(&probe, matrix::PROBE).unwrap();
        Self { guest, interface, gateway: Some(gateway), runtime, directory, probe }
    }

    /// What the program that tries prints in the guest.
    pub fn probe(&self, other: &Interface, word: &str, probes: &[&str]) -> String {
        let (gateway, other, own) = (self.interface.gateway, other.address, self.interface.address);
        let arguments = matrix::arguments(Sides { gateway, other, own }, word, probes);
        let mut all = vec![self.probe.to_str().unwrap()];
        all.extend(arguments.iter().map(String::as_str));
        let output = self.guest.output("python3", &all);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What a program prints in the guest that has all the words of the one that tries.
    pub fn python(&self, program: &str) -> String {
        let output = self.python_process(program).wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts such a program.
    pub fn python_process(&self, program: &str) -> Child {
        let Interface { gateway, address, .. } = self.interface;
        let probe = self.probe.display();
        let program = format!(
            "import sys
sys.argv[1:] = ['{gateway}', '172.16.0.200', '{address}', 'word']
exec(open('{probe}').read())
{program}"
        );
        let mut python = Command::new("python3");
        python.args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped());
        python.stderr(Stdio::piped());
        self.guest.namespace.run(|| python.spawn().unwrap())
    }

    /// How one probe ends.
    pub fn way(&self, probe: &str) -> String {
        let other =
            Interface { address: std::net::Ipv4Addr::new(172, 16, 0, 200), ..self.interface };
        matrix::way(&self.probe(&other, "way", &[probe]), probe).to_owned()
    }

    pub fn client(&self) -> &fireclaw_net::Client {
        self.gateway.as_ref().unwrap().client()
    }

    pub fn status(&self) -> fireclaw_net::Status {
        self.runtime.block_on(self.client().status()).unwrap()
    }

    pub fn end(mut self) {
        let gateway = self.gateway.take().unwrap();
        self.runtime.block_on(gateway.close()).unwrap();
    }
}
