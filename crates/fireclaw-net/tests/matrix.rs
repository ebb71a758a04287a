//! What each policy opens, from a guest at a tap, with and without root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::Machine;
use fireclaw_net::NetworkMode;
use fireclaw_netlab::{Lab, enter, matrix};

/// Everything under each policy.
fn matrix_in(mode: NetworkMode, lab: &Lab) {
    let other = Machine::start(mode, "full", "other");
    let listener = other.guest.namespace.run(|| std::net::TcpListener::bind("0.0.0.0:80").unwrap());
    let mut wrong = Vec::new();
    for (column, policy) in matrix::POLICIES.iter().enumerate() {
        let machine = Machine::start(mode, policy, "machine");
        let word = format!("{mode:?}-{column}");
        let said = machine.probe(&other.interface, &word, &matrix::probes());
        let found = matrix::wrong(column, &said, &word, &lab.internet);
        wrong.extend(found.into_iter().map(|line| format!("{policy}: {line}")));
        machine.end();
    }
    drop(listener);
    other.end();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn everything_on_the_host() {
    let Some(lab) = enter("everything_on_the_host") else { return };
    matrix_in(NetworkMode::Host, &lab);
}

#[test]
fn everything_in_namespaces() {
    let Some(lab) = enter("everything_in_namespaces") else { return };
    matrix_in(NetworkMode::Namespace, &lab);
}

#[test]
fn the_table_is_in_the_documentation() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/network.md");
    let text = std::fs::read_to_string(docs).unwrap();
    assert!(text.contains(&matrix::table()), "put this into docs/network.md:\n{}", matrix::table());
}
