//! What each policy opens, tried from inside real VMs.

use fireclaw_netlab::matrix::{self, Sides};

use super::{GATEWAY, Host, Who, address, on_a_host};

/// Answers whoever connects.
const SERVER: &str = "exec python3 -c '
import socket
server = socket.create_server((\"\", 80))
print(\"up\", flush=True)
while True: server.accept()[0].sendall(b\"hello\")
'";

/// Tries everything, with the program on standard input. Who it is it looks up.
const TRY: &str = "own=$(ip -4 -o address show dev eth0 | sed 's/.* inet //; s,/.*,,')
exec python3 - ";

#[test]
fn everything_as_root() {
    on_a_host("network::matrix::everything_as_root", |host| everything(host, Who::Root));
}

#[test]
fn everything_as_a_user() {
    on_a_host("network::matrix::everything_as_a_user", |host| everything(host, Who::User));
}

/// Everything under each policy.
fn everything(host: &Host, who: Who) {
    let neighbour = host.start(who, "full", SERVER);
    let other = address(&host.list(who));
    let mut wrong = Vec::new();
    for (column, policy) in matrix::POLICIES.iter().enumerate() {
        let word = format!("{who:?}-{column}");
        // Its own address is not known before it runs.
        let sides = Sides { gateway: GATEWAY, other, own: GATEWAY };
        let mut arguments = matrix::arguments(sides, &word, &matrix::probes());
        arguments[2] = "$own".into();
        let line = format!("{TRY}{}", arguments.join(" "));
        let done = host.run(who, policy, &[&line], matrix::PROBE).exits(0);
        let found = matrix::wrong(column, &done.stdout(), &word, &host.lab.internet);
        wrong.extend(found.into_iter().map(|line| format!("{who:?}, {policy}: {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    neighbour.end();
    host.is_clean(who);
}
