//! The private IRC server: who is let in, who may command, and what it outlives.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Home, finish, timeout, wait_until};
use crate::overseer::{Overseer, is_gone, kill};

/// All that the server says to somebody who only sends this, until it closes.
fn refused(port: u16, lines: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(timeout())).unwrap();
    socket.write_all(lines.as_bytes()).unwrap();
    let mut said = Vec::new();
    // It may reset the connection.
    let _ = socket.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn who_does_not_know_the_password_is_not_let_in_and_the_first_is_no_operator() {
    let overseer = Overseer::start(&[]);
    let password = overseer.password().unwrap();
    for wrong in ["", "PASS x\r\n", "PASS :\r\n"] {
        let said = refused(
            overseer.port,
            &format!("{wrong}NICK mallory\r\nUSER m 0 * :m\r\nJOIN #control\r\n"),
        );
        assert!(said.contains("ERROR") && !said.contains(" 001 "), "{said}");
    }
    // Only the user who started it can read the password.
    let mode = |path: &str| {
        let path = overseer.home.path().join(path);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert!(password.len() >= 32, "{password}");
    assert_eq!((mode("irc"), mode("irc/password"), mode("irc/ngircd.conf")), (0o700, 0o600, 0o600));
    // It is named where people look for it, and shown nowhere.
    let said = overseer.said.join("\n");
    assert!(said.contains("irc/password") && !said.contains(&password), "{said}");
    for pid in overseer.children("") {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&password));
    }
    // Who knows it may, and is no operator.
    let mut ann = overseer.person("ann");
    ann.send("NAMES #control");
    let names = ann.until(" 353 ");
    assert!(names.contains("ann") && !names.contains(['@', '&', '~', '%']), "{names}");
    ann.command("!pause nobody", "there is no agent nobody");
    overseer.end();
}

#[test]
fn the_password_stays_the_same_over_restarts() {
    let mut overseer = Overseer::start(&[]);
    let password = overseer.password();
    let port = overseer.port;
    overseer.kill();
    overseer.again();
    assert_eq!((overseer.password(), overseer.port), (password, port));
    overseer.person("ann").command("!list", "no agents");
    overseer.end();
}

#[test]
fn a_taken_port_is_left_alone_and_another_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let overseer = Overseer::at(port, &[]);
    let said = overseer.said.join("\n");
    assert!(said.contains(&format!("port {port} is taken")), "{said}");
    assert_ne!(overseer.port, port);
    overseer.person("ann").command("!list", "no agents");
    overseer.end();
}

#[test]
fn a_private_server_may_die_again_and_again() {
    let mut overseer = Overseer::start(&[]);
    // Six deaths in ten seconds ended the overseer once.
    for _ in 0..6 {
        let mut server = None;
        wait_until("the private server to run", || {
            server = overseer.children("--nodaemon").into_iter().next();
            server.is_some()
        });
        let server = server.unwrap();
        kill(server);
        is_gone(server);
    }
    assert!(overseer.runs());
    let mut ann = overseer.person("ann");
    ann.sees("#control", "overseer");
    ann.command("!list", "no agents");
    overseer.end();
}

#[test]
fn an_owner_is_not_named_where_nobody_can_prove_who_he_is() {
    for owner in ["ann", "ann!*@*", "*!*@127.0.0.1"] {
        let home = Home::new();
        finish(home.fireclaw(["overseer", "--owner", owner]), Vec::new(), timeout())
            .exits(2)
            .says(&["cannot tell who somebody is", "--server HOST --owner ACCOUNT"]);
        assert!(!home.path().join("irc").exists());
    }
}
