//! Published ports, in the words of the command line.

use std::io::{self, ErrorKind};

use fireclaw_sandbox::{Error, Ports, Publication};
use fireclaw_say::say;
use fireclaw_vm::Commands;

use super::Outcome;
use super::relay::Broken;
use crate::error::{CliError, Kind, Result};

/// Takes all ports, or none; tells those that nobody chose.
pub fn open(publications: &[Publication]) -> Result<Ports> {
    let ports = Ports::open(publications).map_err(|error| match error {
        Error::Publish { ref cause, .. } => cannot(error.to_string(), cause),
        error => error.into(),
    })?;
    for (publication, bound) in ports.bound() {
        if publication.host().port() == 0 {
            say!("fireclaw: forwarding {bound} to guest port {}", publication.guest());
        }
    }
    Ok(ports)
}

fn cannot(message: String, cause: &io::Error) -> CliError {
    let hint = match cause.kind() {
        ErrorKind::AddrInUse => "another program has this port: choose another, or 0 for any",
        ErrorKind::AddrNotAvailable => {
            "this host does not have that address: 0.0.0.0 is all it has"
        }
        ErrorKind::PermissionDenied => "ports below 1024 are for root: choose a higher one",
        _ => "127.0.0.1 and a port above 1023 are for everybody",
    };
    CliError::new(Kind::Host, message).hint(hint)
}

/// Passes connections on while `work` goes on, which is the guest's command.
pub async fn during(
    ports: Ports,
    commands: &Commands,
    work: impl Future<Output = std::result::Result<Outcome, Broken>>,
) -> std::result::Result<Outcome, Broken> {
    let mut serving = ports.serve(commands).map_err(|e| {
        Broken::Here(CliError::new(Kind::System, format!("cannot wait for connections: {e}")))
    })?;
    let outcome = tokio::select! {
        outcome = work => outcome,
        never = serving.pass_on() => match never {},
    };
    // What a command that ended by itself has said is to arrive.
    if matches!(outcome, Ok(Outcome::Exited(_) | Outcome::OutOfMemory(_))) {
        serving.finish().await;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let publication = format!("{}:80", taken.local_addr().unwrap()).parse().unwrap();
        let error = open(&[publication]).unwrap_err().text();
        assert!(error.contains("cannot publish") && error.contains("hint:"), "{error}");
    }
}
