//! A gateway at work.

mod listen;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fireclaw_host::ProcessStamp;
use fireclaw_policy::{Dns, MAX_TARGETS, Network, Target};
use ipnet::Ipv4Net;
use netlink_sys::Socket;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::access::{Access, locked};
use super::resolver::Resolver;
use super::slirp::Uplink;
use super::{lifetime, proxy};
use crate::control::Status;
use crate::helper::{self, Answer};
use crate::mode::{NetworkMode, host_addresses};
use crate::netlink::{self, Netlink};
use crate::rules::{Kind, Refused};
use crate::state::Machine;
use crate::{Error, Interface, Request, Result, wire};
pub(super) use listen::SocketFile;

/// How long the helper may take to remove everything.
const REMOVAL: Duration = Duration::from_secs(30);
/// How long after rules could not be set it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// What a gateway starts with.
pub(super) struct Parts {
    pub machine: Machine,
    pub request: Request,
    pub helper: UnixStream,
    pub proxy: TcpListener,
    pub dns: UdpSocket,
    pub dns_tcp: TcpListener,
    /// The host's addresses that the rules know.
    pub host: Vec<Ipv4Net>,
    /// Where it is asked.
    pub socket: SocketFile,
}

/// A gateway at work.
struct Gateway {
    machine: Machine,
    request: Request,
    shared: Arc<Access>,
    helper: Arc<Mutex<UnixStream>>,
    uplink: Mutex<Option<Uplink>>,
    /// The host's addresses that the rules know. Who has it may change rules.
    known: tokio::sync::Mutex<Vec<Ipv4Net>>,
    end: watch::Sender<Lifetime>,
}

/// When it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    /// With who started it.
    WithStarter,
    /// With a VM's VMM.
    With(ProcessStamp),
    /// It can hold its policy no longer.
    Now,
}

/// Serves until the end, then has everything removed.
pub(super) fn run(
    parts: Parts,
    starter: &UnixStream,
    ready: impl FnOnce(Result<()>) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("starting"))?;
    runtime.block_on(async {
        let Parts { machine, request, helper, proxy, dns, dns_tcp, host, socket } = parts;
        let closing = helper.try_clone().map_err(Error::system("starting"))?;
        let gateway = Arc::new(Gateway {
            shared: Arc::new(Access::new(request.config.clone(), request.policy.clone())),
            machine,
            request,
            helper: Arc::new(Mutex::new(helper)),
            uplink: Mutex::default(),
            known: tokio::sync::Mutex::new(host),
            end: watch::Sender::new(Lifetime::WithStarter),
        });
        let begun = async {
            let listener = socket.listener.try_clone().and_then(UnixListener::from_std);
            let listener = listener.map_err(Error::system("listening"))?;
            gateway.connect(Kind::of(&gateway.request.policy)).await?;
            gateway.spawn(proxy, dns, dns_tcp).map_err(Error::system("listening"))?;
            if gateway.request.mode == NetworkMode::Namespace {
                let socket = lifetime::watch(Netlink::watch_local()?);
                let socket = socket.map_err(Error::system("watching addresses"))?;
                tokio::spawn(Arc::clone(&gateway).follow_addresses(socket));
            }
            tokio::spawn(Arc::clone(&gateway).listen(listener));
            Result::Ok(())
        };
        let said = match begun.await {
            Ok(()) => ready(Ok(())),
            Err(error) => {
                let _ = ready(Err(error.clone()));
                Err(error)
            }
        };
        if said.is_ok() {
            tokio::select! {
                () = ended(gateway.end.subscribe(), starter) => {}
                () = lifetime::ended(gateway.machine.helper) => {}
            }
        }
        let uplink = locked(&gateway.uplink).take();
        if let Some(uplink) = uplink {
            uplink.end().await;
        }
        // The helper takes it as the order to remove everything.
        let _ = closing.shutdown(std::net::Shutdown::Both);
        let _ = tokio::time::timeout(REMOVAL, lifetime::ended(gateway.machine.helper)).await;
        said
    })
}

/// Resolves when the gateway is to end.
async fn ended(mut changes: watch::Receiver<Lifetime>, starter: &UnixStream) {
    loop {
        let end = *changes.borrow_and_update();
        let over = async {
            match end {
                Lifetime::WithStarter => lifetime::closed(starter).await,
                Lifetime::With(process) => lifetime::ended(process).await,
                Lifetime::Now => {}
            }
        };
        tokio::select! {
            // First what it was told: who has handed it over closes the stream at once.
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = over => return,
        }
    }
}

impl Gateway {
    /// Starts what serves the guest.
    fn spawn(
        self: &Arc<Self>,
        proxy: TcpListener,
        dns: UdpSocket,
        dns_tcp: TcpListener,
    ) -> std::io::Result<()> {
        proxy.set_nonblocking(true)?;
        dns.set_nonblocking(true)?;
        dns_tcp.set_nonblocking(true)?;
        let proxy = tokio::net::TcpListener::from_std(proxy)?;
        let dns = tokio::net::UdpSocket::from_std(dns)?;
        let dns_tcp = tokio::net::TcpListener::from_std(dns_tcp)?;
        let guest = self.machine.address;
        tokio::spawn(proxy::serve(Arc::clone(&self.shared), proxy, guest));
        let resolver = Resolver::new(Arc::clone(&self.shared), guest);
        tokio::spawn(Arc::clone(&resolver).serve_udp(dns));
        tokio::spawn(resolver.serve_tcp(dns_tcp));
        Ok(())
    }

    /// The way out of a namespace, if it is needed.
    async fn connect(&self, kind: Kind) -> Result<()> {
        let there = locked(&self.uplink).take();
        let needed = kind == Kind::Open && self.request.mode == NetworkMode::Namespace;
        let uplink = match there {
            Some(uplink) if needed => Some(uplink),
            None if needed => Some(Uplink::start(self.machine.helper).await?),
            Some(uplink) => {
                uplink.end().await;
                None
            }
            None => None,
        };
        *locked(&self.uplink) = uplink;
        Ok(())
    }

    /// Asks the helper. It may have to wait until others have made or removed their VMs.
    async fn ask(&self, ask: helper::Ask) -> Result<Answer> {
        let helper = Arc::clone(&self.helper);
        let asked = tokio::task::spawn_blocking(move || {
            let helper = locked(&helper);
            wire::send(&helper, &ask, &[])?;
            wire::receive::<Result<Answer>>(&helper)
        });
        let failed = |e: std::io::Error| Error::gateway(format!("lost its helper: {e}"));
        match asked.await.map_err(|e| failed(e.into()))?.map_err(failed)? {
            Some((answer, _)) => answer,
            None => Err(Error::gateway("lost its helper")),
        }
    }

    /// Has another policy from now on. What it does not allow is closed first, what it
    /// newly allows is opened last.
    async fn change(&self, policy: Network) -> Result<()> {
        let mut known = self.known.lock().await;
        self.set_policy(policy, &mut known).await
    }

    /// The same, by who may change rules.
    async fn set_policy(&self, policy: Network, known: &mut Vec<Ipv4Net>) -> Result<()> {
        let (before, kind) = (Kind::of(&self.shared.policy().network), Kind::of(&policy));
        let word = policy.word();
        if kind == Kind::Open {
            self.connect(kind).await?;
            if let Err(error) = self.rules(kind, word, known).await {
                self.connect(before).await?;
                return Err(error);
            }
            self.shared.set_policy(policy);
            return Ok(());
        }
        self.shared.set_policy(policy);
        match self.rules(kind, word, known).await {
            Err(error) if before == Kind::Open => {
                // More would be open than was asked for.
                self.end.send_replace(Lifetime::Now);
                Err(Error::gateway(format!("ended, as it could not close the rest: {error}")))
            }
            set => {
                set?;
                self.connect(kind).await
            }
        }
    }

    /// Has the helper set rules, with the addresses that the host has now.
    async fn rules(&self, kind: Kind, policy: &str, known: &mut Vec<Ipv4Net>) -> Result<()> {
        let host = host_addresses(self.request.mode)?;
        let rules = helper::Ask::Rules { kind, policy: policy.into(), host: host.clone() };
        self.ask(rules).await?;
        *known = host;
        Ok(())
    }

    async fn allow(&self, text: &str) -> Result<()> {
        let not = |reason: &str| Error::NotHere {
            policy: format!("allowing {}", text.escape_debug()),
            reason: reason.into(),
        };
        let target = Target::parse(text).map_err(|reason| not(&format!("it {reason}")))?;
        let mut known = self.known.lock().await;
        let mut policy = self.shared.policy().network.clone();
        match &mut policy {
            Network::Full => return Ok(()),
            Network::Allow { allow, .. } if allow.contains(&target) => return Ok(()),
            Network::Allow { allow, .. } if allow.len() >= MAX_TARGETS => {
                return Err(not(&format!("{MAX_TARGETS} targets are allowed already")));
            }
            Network::Allow { allow, .. } => allow.push(target),
            Network::None => {
                policy = Network::Allow { allow: vec![target], deny: Vec::new(), dns: Dns::Pinned };
            }
            Network::Local => return Err(not("the policy is local, which knows no names")),
        }
        self.set_policy(policy, &mut known).await
    }

    async fn status(&self) -> Result<Status> {
        let packets: Vec<Refused> = match self.ask(helper::Ask::Counts).await? {
            Answer::Counts(packets) => packets,
            Answer::Done => Vec::new(),
        };
        let denials = self.shared.denials();
        Ok(Status {
            owner: self.machine.owner.clone(),
            policy: self.shared.policy().network.clone(),
            interface: Interface::of(&self.machine, &self.request.config),
            gateway: self.request.config.gateway(),
            denied: denials.total(),
            denials: denials.counts(),
            last: denials.last(),
            packets,
        })
    }

    /// Tells the rules of a namespace when the host gets or loses an address.
    async fn follow_addresses(self: Arc<Self>, socket: AsyncFd<Socket>) {
        loop {
            if self.tell_addresses().await.is_err() {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let Ok(mut ready) = socket.readable().await else { return };
            // What changed is looked up anew; the message only says that something did.
            netlink::drain(ready.get_inner());
            ready.clear_ready();
        }
    }

    async fn tell_addresses(&self) -> Result<()> {
        let mut known = self.known.lock().await;
        if host_addresses(NetworkMode::Namespace)? == *known {
            return Ok(());
        }
        let policy = self.shared.policy();
        self.rules(Kind::of(&policy.network), policy.network.word(), &mut known).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever of the two it comes to know of first: of both at once, chance would decide.
    #[tokio::test]
    async fn one_that_was_handed_over_does_not_end_with_its_starter() {
        let vmm = ProcessStamp::of(std::process::id().try_into().unwrap()).unwrap();
        for _ in 0..64 {
            let (starter, theirs) = UnixStream::pair().unwrap();
            let end = watch::Sender::new(Lifetime::WithStarter);
            let mut ended = std::pin::pin!(ended(end.subscribe(), &starter));
            let now = Duration::ZERO;
            assert!(tokio::time::timeout(now, &mut ended).await.is_err());
            end.send_replace(Lifetime::With(vmm));
            drop(theirs);
            lifetime::closed(&starter).await;
            assert!(tokio::time::timeout(now, &mut ended).await.is_err());
        }
    }
}
