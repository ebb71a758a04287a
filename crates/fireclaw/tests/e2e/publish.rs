//! Ports of the host that lead into a VM.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::harness::{Home, finish_child, signal, timeout, wait, wait_until};

/// Serves files in the guest. Each connection is served in a thread.
const FILES: &str = "python3 -c '
import hashlib, http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = \"HTTP/1.1\"
    def do_POST(self):
        digest, left = hashlib.sha256(), int(self.headers[\"Content-Length\"])
        while left: piece = self.rfile.read(min(left, 1 << 16)); digest.update(piece); left -= len(piece)
        body = digest.hexdigest().encode()
        self.send_response(200); self.send_header(\"Content-Length\", str(len(body))); self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer((\"127.0.0.1\", 80), Handler)
print(\"up\", flush=True)
server.serve_forever()
'";

/// A run whose ports the host chose. A command whose outputs nobody reads any
/// more would end.
struct Run {
    child: Child,
    ports: Vec<u16>,
    _outputs: (Box<dyn Read>, Box<dyn Read>),
}

/// Starts a run, up to the line `up` of its command.
fn start(home: &Home, guest: &[u16], line: &str) -> Run {
    let mut run = home.fireclaw(["run", "-n", "--timeout", &timeout().as_secs().to_string()]);
    for port in guest {
        run.args(["--publish", &format!("0:{port}")]);
    }
    run.arg(line).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let ports = guest.iter().map(|guest| {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let rest = line
            .strip_prefix("fireclaw: forwarding 127.0.0.1:")
            .unwrap_or_else(|| panic!("{line}"));
        assert!(rest.ends_with(&format!(" to guest port {guest}\n")), "{line}");
        rest.split(' ').next().unwrap().parse().unwrap()
    });
    let ports: Vec<u16> = ports.collect();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut up = String::new();
    output.read_line(&mut up).unwrap();
    assert_eq!(up, "up\n");
    Run { child, ports, _outputs: (Box::new(output), Box::new(said)) }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(timeout())).unwrap();
    stream.set_write_timeout(Some(timeout())).unwrap();
    stream
}

/// Asks a web server; the body of its answer.
fn ask(port: u16, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let length = body.len();
    write!(stream, "{head} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n").unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    answer.split_off(end + 4)
}

#[test]
fn a_server_in_the_machine_is_reached_and_gone_with_it() {
    let home = Home::new();
    let line = format!(
        "head -c 20000000 /dev/urandom >/tmp/large; cd /tmp; sha256sum large >sum; {FILES}"
    );
    let mut run = start(&home, &[80, 81], &line);
    let port = run.ports[0];

    // Out, 20 MB, several at a time.
    let expected = String::from_utf8(ask(port, "GET /sum", b"")).unwrap();
    let fetch = |_| std::thread::spawn(move || ask(port, "GET /large", b""));
    for body in (0..3).map(fetch).collect::<Vec<_>>() {
        assert!(expected.starts_with(&sha256(&body.join().unwrap())));
    }
    // In, as much.
    let body: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(String::from_utf8(ask(port, "POST /", &body)).unwrap(), sha256(&body));

    // Nobody listens on the other: told as a host would, but later.
    let mut nobody = connect(run.ports[1]);
    let got = nobody.read(&mut [0]).unwrap_err();
    assert_eq!(got.kind(), ErrorKind::ConnectionReset);

    // More than there may be at once: the first ones, which say nothing, hold
    // up the last only until they end.
    let idle: Vec<TcpStream> = (0..40).map(|_| connect(run.ports[0])).collect();
    let last = std::thread::spawn(move || ask(port, "GET /sum", b""));
    drop(idle);
    assert_eq!(String::from_utf8(last.join().unwrap()).unwrap(), expected);

    // Ctrl-C ends it, and the ports are free.
    signal(&run.child, Signal::INT);
    assert_eq!(wait(&mut run.child, timeout()).code(), Some(130));
    for port in run.ports {
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
    home.is_clean();
}

/// Servers that listen on one address only, whichever that is.
#[test]
fn a_server_is_reached_at_whatever_address_it_listens() {
    let home = Home::new();
    let line = "ip addr add 10.9.8.7/32 dev lo; python3 -c '
import socket, threading
def serve(address, port, family):
    server = socket.create_server((address, port), family=family)
    def answer():
        while True:
            stream, _ = server.accept()
            stream.sendall(address.encode())
            stream.close()
    return threading.Thread(target=answer)
threads = [serve(\"::1\", 80, socket.AF_INET6), serve(\"10.9.8.7\", 81, socket.AF_INET),
           serve(\"0.0.0.0\", 82, socket.AF_INET)]
for thread in threads: thread.start()
print(\"up\", flush=True)
'";
    let mut run = start(&home, &[80, 81, 82], line);
    for (port, address) in run.ports.iter().zip(["::1", "10.9.8.7", "0.0.0.0"]) {
        let mut answer = String::new();
        connect(*port).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, address);
    }
    signal(&run.child, Signal::INT);
    assert_eq!(wait(&mut run.child, timeout()).code(), Some(130));
    home.is_clean();
}

/// Each direction ends by itself: the answer comes after the question's end.
/// And it arrives whole, although its server has ended meanwhile.
#[test]
fn an_end_of_one_direction_leaves_the_other() {
    let home = Home::new();
    let line = "python3 -c '
import socket
server = socket.create_server((\"127.0.0.1\", 7))
print(\"up\", flush=True)
stream, _ = server.accept()
got = b\"\"
while piece := stream.recv(1 << 16): got += piece
stream.sendall(got[::-1] * 100)
'";
    let run = start(&home, &[7], line);
    let mut stream = connect(run.ports[0]);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "noitseuq".repeat(100));
    finish_child(run.child, timeout()).exits(0);
    home.is_clean();
}

/// A client that breaks off is no reason for the run to end.
#[test]
fn a_connection_may_break_at_either_end() {
    let home = Home::new();
    let line = "python3 -c '
import socket, struct
server = socket.create_server((\"127.0.0.1\", 7))
print(\"up\", flush=True)
stream, _ = server.accept()
try:
    while stream.recv(1 << 16): pass
except ConnectionResetError: pass
stream.close()
stream, _ = server.accept()
stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(\"ii\", 1, 0))
stream.close()
stream, _ = server.accept()
stream.sendall(stream.recv(5))
'";
    let run = start(&home, &[7], line);
    let mut broken = connect(run.ports[0]);
    broken.write_all(b"x").unwrap();
    rustix::net::sockopt::set_socket_linger(&broken, Some(std::time::Duration::ZERO)).unwrap();
    drop(broken);
    let mut breaks = connect(run.ports[0]);
    // Reset, or ended: what is written then goes nowhere.
    let _ = breaks.read(&mut [0]);
    wait_until("the break", || breaks.write_all(b"x").is_err());
    let mut well = connect(run.ports[0]);
    well.write_all(b"hello").unwrap();
    let mut answer = String::new();
    well.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
    finish_child(run.child, timeout()).exits(0);
    home.is_clean();
}

#[test]
fn what_cannot_be_published_is_told_before_anything_starts() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let publication = format!("{}:80", taken.local_addr().unwrap().port());
    home.run(["--publish", &publication, "true"]).exits(125).says(&[
        "cannot publish 127.0.0.1:",
        "in use",
        "hint:",
        "or 0 for any",
    ]);
    home.run(["--publish", "192.0.2.1:8080:80", "true"]).exits(125).says(&["hint:", "address"]);
    for (value, said) in [
        ("8080", "HOST_PORT"),
        ("localhost:8080:80", "HOST_PORT"),
        ("8080:0", "1 to 65535"),
        ("8080:70000", "no port"),
        ("x:80", "no port"),
    ] {
        home.run(["--publish", value, "true"]).exits(2).says(&[said]);
    }
    home.run(["--parallel", "2", "--publish", "0:80", "true"])
        .exits(2)
        .says(&["cannot be combined", "hint:"]);
    home.is_clean();
}

fn sha256(bytes: &[u8]) -> String {
    let mut sum = std::process::Command::new("sha256sum");
    let done = crate::harness::finish(
        {
            sum.arg("-");
            sum
        },
        bytes.to_vec(),
        timeout(),
    )
    .exits(0);
    done.stdout().split(' ').next().unwrap().to_owned()
}
