//! InspIRCd as other people's server: with what IRCv3 has, and with TLS.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rcgen::{CertificateParams, KeyPair};

use crate::harness::{finish_child, timeout, wait_until};
use crate::overseer::free_port;

/// What it can do beyond the RFCs, by its own modules' names.
const MODULES: [&str; 13] = [
    "botmode",
    "cap",
    "chanhistory",
    "ircv3",
    "ircv3_accounttag",
    "ircv3_batch",
    "ircv3_chghost",
    "ircv3_ctctags",
    "ircv3_servertime",
    "monitor",
    "services_account",
    "ssl_gnutls",
    "sslinfo",
];

/// A running server; it ends with this value.
pub struct InspIrcd {
    directory: tempfile::TempDir,
    child: Child,
    /// Where it speaks in the clear.
    pub port: u16,
    /// Where it speaks TLS.
    pub tls_port: u16,
}

impl InspIrcd {
    /// Starts one on loopback, with a certificate that nobody else made.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("fireclaw-irc").tempdir().unwrap();
        certificate(directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let (port, tls_port) = (free_port(), free_port());
        let at = directory.path().display();
        let modules: Vec<_> =
            MODULES.iter().map(|name| format!("<module name=\"{name}\">\n")).collect();
        let text = format!(
            r#"{modules}
<server name="irc.test.internal" description="tests" id="1AB" network="Tests">
<admin name="tests" nick="tests" email="tests@test.internal">
<bind address="127.0.0.1" port="{port}" type="clients">
<bind address="127.0.0.1" port="{tls_port}" type="clients" sslprofile="tls">
<sslprofile name="tls" provider="gnutls" certfile="{at}/cert.pem" keyfile="{at}/key.pem">
<connect name="all" allow="*" resolvehostnames="no" useident="no" fakelag="no" threshold="100000" commandrate="1000000" localmax="100" globalmax="100">
<path configdir="{at}" datadir="{at}" logdir="{at}" moduledir="{moduledir}">
<log method="file" type="*" level="default" target="{at}/log">
<pid file="{at}/pid">
"#,
            modules = modules.concat(),
            moduledir = module_directory().display(),
        );
        fs::write(directory.path().join("inspircd.conf"), text).unwrap();
        let child = begin(&directory, port);
        Self { directory, child, port, tls_port }
    }

    /// The certificate that it shows.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// Ends it without a word to anybody, and starts it again.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = begin(&self.directory, self.port);
    }
}

impl Drop for InspIrcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `make test-packages` unpacked it, or an installed one.
fn program() -> PathBuf {
    let named = std::env::var_os("FIRECLAW_INSPIRCD").map(PathBuf::from);
    named.filter(|path| path.exists()).unwrap_or_else(|| "/usr/sbin/inspircd".into())
}

/// Where the modules of that program are: the package puts them beside.
fn module_directory() -> PathBuf {
    program().parent().and_then(|sbin| sbin.parent()).unwrap().join("lib/inspircd/modules")
}

fn begin(directory: &tempfile::TempDir, port: u16) -> Child {
    let mut command = Command::new(program());
    command.args(["--nofork", "--runasroot", "--config"]);
    command.arg(directory.path().join("inspircd.conf")).current_dir(directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("inspircd: run `make test-packages`");
    wait_until("InspIRCd to listen", || {
        let ended = child.try_wait().unwrap();
        let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        assert!(ended.is_none(), "InspIRCd ended: {ended:?}: {}", log());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    child
}

/// A certificate for the loopback address, and its key, in files.
pub fn certificate(certificate: PathBuf, key: PathBuf) {
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
    fs::write(key, pair.serialize_pem()).unwrap();
}

/// What a command says until it is ended, once it has said this.
#[track_caller]
pub fn says(mut command: Command, words: &str) -> String {
    let said = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen().unwrap());
    let child = command.spawn().unwrap();
    wait_until(words, || fs::read_to_string(said.path()).unwrap().contains(words));
    crate::harness::signal(&child, rustix::process::Signal::TERM);
    finish_child(child, timeout());
    fs::read_to_string(said.path()).unwrap()
}
