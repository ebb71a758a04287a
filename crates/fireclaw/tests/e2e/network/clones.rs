//! What a VM with an interface finds, and what can be known of it and changed while it runs.

use std::collections::HashSet;
use std::io::{BufRead, Read};
use std::net::TcpStream;

use fireclaw_net::Client;

use super::{BOTH, Who, on_a_host};

/// Says hello to a server that echoes, says how the connection ends, and stays.
const LASTING: &str = "exec python3 -c '
import socket, time
stream = socket.create_connection((\"elsewhere.example\", 22))
stream.recv(100); stream.sendall(b\"word\\n\"); stream.recv(100)
print(\"up\", flush=True)
try: print(\"closed\" if not stream.recv(1) else \"said\", flush=True)
except OSError as error: print(error, flush=True)
time.sleep(170)
'";

#[test]
fn each_clone_has_a_card_of_its_own() {
    on_a_host("network::clones::each_clone_has_a_card_of_its_own", |host| {
        for who in BOTH {
            // Nothing is configured before names work.
            let line = "cat /sys/class/net/eth0/address
                ip -4 -o address show dev eth0 | sed 's/.* inet //; s,/.*,,'
                curl -s http://allowed.example/";
            let policy = "allow:allowed.example";
            let done = host.run(who, policy, &["--parallel", "2", line], "").exits(0);
            let (mut own, mut answers) = (HashSet::new(), 0);
            for line in done.stdout().lines() {
                let (_, line) = line.split_once("] ").unwrap();
                if line == "internet says hello as allowed.example" {
                    answers += 1;
                } else {
                    assert!(line.starts_with("02:fc:ac:10:00:") || line.starts_with("172.16.0."));
                    assert!(own.insert(line.to_owned()), "both have {line}");
                }
            }
            assert_eq!((own.len(), answers), (4, 2), "{}", done.stdout());
            host.is_clean(who);
        }
    });
}

#[test]
fn a_port_is_published_beside_a_card() {
    on_a_host("network::clones::a_port_is_published_beside_a_card", |host| {
        let serve = "exec python3 -c '
import socket
server = socket.create_server((\"\", 80))
print(\"up\", flush=True)
while True: server.accept()[0].sendall(b\"hello\")
'";
        let machine = host.start_with(Who::User, "local", &["--publish", "8080:80"], serve);
        let mut said = String::new();
        let stream = TcpStream::connect(("127.0.0.1", 8080)).unwrap();
        stream.take(5).read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
        machine.end();
        host.is_clean(Who::User);
    });
}

#[test]
fn without_a_card_there_is_no_trace() {
    on_a_host("network::clones::without_a_card_there_is_no_trace", |host| {
        let links = || fireclaw_netlab::run("ip", &["-o", "link"]);
        let rules = || fireclaw_netlab::run("nft", &["list", "ruleset"]);
        let before = links();
        for who in BOTH {
            let machine = host.start(who, "none", "echo up; exec sleep 170");
            assert_eq!((links(), rules()), (before.clone(), String::new()));
            assert!(host.list(who).is_empty());
            machine.end();
            host.run(who, "none", &["! ls -d /sys/class/net/*/device"], "").exits(0);
        }
        assert!(!host.home.path().join("net.db").exists());
        assert!(!std::path::Path::new("/run/fireclaw").exists());
    });
}

#[test]
fn a_change_cuts_what_is_open() {
    on_a_host("network::clones::a_change_cuts_what_is_open", |host| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for who in BOTH {
            for policy in ["allow:elsewhere.example", "full"] {
                let mut machine = host.start(who, policy, LASTING);
                let listed = host.list(who);
                let client = Client::new(listed[0]["directory"].as_str().unwrap());
                let less = "allow:allowed.example".parse().unwrap();
                runtime.block_on(client.set_policy(&less)).unwrap();
                let mut end = String::new();
                // Under `full` the guest's kernel learns it when it sends something.
                if policy != "full" {
                    machine.output.read_line(&mut end).unwrap();
                    assert_eq!(end, "[Errno 104] Connection reset by peer\n");
                }
                let status = runtime.block_on(client.status()).unwrap();
                assert_eq!(status.policy, less);
                machine.end();
                host.is_clean(who);
            }
        }
    });
}

#[test]
fn refusals_can_be_read_while_it_runs() {
    on_a_host("network::clones::refusals_can_be_read_while_it_runs", |host| {
        for who in BOTH {
            let line = "curl -s http://other.example/
                curl -s -m 5 http://203.0.113.20:81/
                echo up; exec sleep 170";
            let machine = host.start(who, "allow:allowed.example", line);
            let said = host.command(who, &["net", "ls", "--denials"]).exits(0).stdout();
            let told = |what: &str, reason: &str| {
                said.lines().any(|line| line.contains(what) && line.contains(reason))
            };
            assert!(told("other.example", "the name is not allowed"), "{said}");
            assert!(told("203.0.113.20:81", "no allowed name has this address"), "{said}");
            let listed = host.list(who);
            let denials = listed[0]["status"]["denials"].as_array().unwrap();
            let one = denials.iter().find(|denial| denial["what"] == "203.0.113.20").unwrap();
            assert_eq!((&one["port"], &one["count"]), (&81.into(), &1.into()));
            machine.end();
            host.is_clean(who);
        }
    });
}
