//! Images from a real registry, made by umoci and pushed by skopeo.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Done, Home, finish, timeout, wait_until};
use crate::overseer::free_port;

/// `hunter2`, as htpasswd(1) keeps it with bcrypt.
const HASH: &str = "$2b$04$qsjwc8cGHPEC.DrIUTlxb.W2/cge9uFDX/yR2rQpqE43J5TXz.ImW";
/// `ann:hunter2` in base64, as `docker login` keeps it.
const LOGIN: &str = "YW5uOmh1bnRlcjI=";

/// What `make test-packages` unpacked, or an installed one.
fn tool(variable: &str, name: &str) -> Command {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    Command::new(named.unwrap_or_else(|| name.into()))
}

#[track_caller]
fn done(mut command: Command, words: &[&str]) {
    command.args(words);
    let program = command.get_program().to_owned();
    let done = finish(command, Vec::new(), timeout());
    assert!(done.status.success(), "{program:?} {words:?}: {}", done.stderr());
}

/// Debian's docker-registry on loopback; it ends with this value.
struct Registry {
    directory: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
    is_private: bool,
}

impl Registry {
    fn start() -> Self {
        Self::of(false)
    }

    /// One that wants a password.
    fn private() -> Self {
        Self::of(true)
    }

    fn of(is_private: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("fireclaw-registry").tempdir().unwrap();
        let port = free_port();
        let at = directory.path().display();
        let auth = match is_private {
            true => format!("auth:\n  htpasswd:\n    realm: test\n    path: {at}/htpasswd\n"),
            false => String::new(),
        };
        fs::write(directory.path().join("htpasswd"), format!("ann:{HASH}\n")).unwrap();
        let text = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    \
             rootdirectory: {at}/data\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}"
        );
        fs::write(directory.path().join("config.yml"), text).unwrap();
        let mut registry = Self { directory, child: None, port, is_private };
        registry.begin();
        registry
    }

    fn begin(&mut self) {
        let log = fs::File::options();
        let log = log.clone().create(true).append(true).open(self.log()).unwrap();
        let mut command = tool("FIRECLAW_DOCKER_REGISTRY", "docker-registry");
        command.arg("serve").arg(self.directory.path().join("config.yml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().expect("docker-registry: run `make test-packages`"));
        let port = self.port;
        wait_until("the registry to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// How often blobs were asked for.
    fn blobs_sent(&self) -> usize {
        let log = fs::read_to_string(self.log()).unwrap();
        log.lines().filter(|line| line.contains("\"GET /v2/") && line.contains("/blobs/")).count()
    }

    fn name(&self, image: &str) -> String {
        format!("localhost:{}/{image}", self.port)
    }

    /// Pushes an image of a layout.
    fn push(&self, layout: &Layout, tag: &str, name: &str, more: &[&str]) {
        let mut skopeo = tool("FIRECLAW_SKOPEO", "skopeo");
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]).args(more);
        if self.is_private {
            skopeo.args(["--dest-creds", "ann:hunter2"]);
        }
        let from = format!("oci:{}:{tag}", layout.path().display());
        done(skopeo, &[&from, &format!("docker://{}", self.name(name))]);
    }

    /// Has a manifest of a type under a tag.
    fn put_manifest(&self, image: &str, tag: &str, kind: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "PUT /v2/{image}/manifests/{tag} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Every file of a blob in the registry's own store.
    fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.directory
            .path()
            .join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An OCI layout that umoci makes.
struct Layout(tempfile::TempDir);

impl Layout {
    /// With the image `base`: a busybox.
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("fireclaw-oci").tempdir().unwrap();
        let layout = Self(directory);
        let root = layout.0.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian's busybox-static");
        for applet in ["sh", "cat", "id", "ls", "pwd", "env", "stat"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        layout.umoci(&["init", "--layout", &layout.path().display().to_string()]);
        layout.umoci(&["new", "--image", &layout.image("base")]);
        layout.insert("base", &root, "/", &[]);
        layout
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("layout")
    }

    fn image(&self, tag: &str) -> String {
        format!("{}:{tag}", self.path().display())
    }

    #[track_caller]
    fn umoci(&self, words: &[&str]) {
        done(tool("FIRECLAW_UMOCI", "umoci"), words);
    }

    /// Adds a layer.
    fn insert(&self, tag: &str, from: &Path, to: &str, more: &[&str]) {
        let (image, from) = (self.image(tag), from.display().to_string());
        let words = [&["insert", "--rootless", "--image", &image], more, &[&from, to]].concat();
        self.umoci(&words);
    }

    /// Adds a layer with files.
    fn files(&self, tag: &str, to: &str, files: &[(&str, &[u8])], more: &[&str]) {
        let from = tempfile::tempdir_in(self.0.path()).unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, bytes) in files {
            fs::write(from.path().join(name), bytes).unwrap();
        }
        self.insert(tag, from.path(), to, more);
    }

    /// Says how an image is run, under a tag.
    fn config(&self, from: &str, to: &str, words: &[&str]) {
        let image = self.image(from);
        self.umoci(&[&["config", "--image", &image, "--tag", to], words].concat());
    }
}

/// `fireclaw` with these words, to its end.
fn fireclaw(home: &Home, words: &[&str]) -> Done {
    finish(home.fireclaw(words), Vec::new(), timeout())
}

/// Bytes that no compression makes fewer.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn an_image_is_pulled_and_run_as_it_says() {
    let (mut registry, layout) = (Registry::start(), Layout::new());
    layout.files("base", "/app", &[("old", b"old"), ("kept", b"kept")], &[]);
    let image = layout.image("base");
    layout.umoci(&["insert", "--rootless", "--image", &image, "--whiteout", "/app/old"]);
    let says = [
        "--config.env",
        "WHO=image",
        "--config.workingdir",
        "/app",
        "--config.user",
        "1000:50",
        "--config.entrypoint",
        "/bin/sh",
        "--config.cmd",
        "-c",
        "--config.cmd",
        "id -u; id -g; pwd; ls; echo $WHO",
    ];
    layout.config("base", "app", &says);
    registry.push(&layout, "app", "app:1", &[]);
    let home = Home::with_images_of_its_own();
    let name = registry.name("app:1");

    let run = |words: &[&str]| home.run([&["--image", &*name], words].concat());
    let first = run(&[]).exits(0);
    assert_eq!(first.stdout(), "1000\n50\n/app\nkept\nimage\n", "{}", first.stderr());
    assert!(first.stderr().contains(&format!("pulling {name}")), "{}", first.stderr());

    // From now on the registry is not needed.
    registry.stop();
    let own = run(&["-e", "WHO=me", "-u", "0", "-w", "/", "--", "-c", "id -u; pwd; echo $WHO"]);
    assert_eq!(own.exits(0).stdout(), "0\n/\nme\n");
    let other = run(&["--entrypoint", "/bin/cat", "--", "kept"]).exits(0);
    assert_eq!(other.stdout(), "kept");
    // What is asked for anew is not to be had.
    run(&["--pull", "always", "--", "-c", "true"]).exits(125).says(&["localhost", "hint: "]);

    let shown = fireclaw(&home, &["image", "inspect", &name]).exits(0).stdout();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["config"]["user"], "1000:50");
    assert_eq!(shown["pulled"]["layers"].as_array().unwrap().len(), 3);
    assert!(fireclaw(&home, &["image", "ls"]).exits(0).stdout().contains(&name));
    let blobs = || fs::read_dir(home.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs(), 4, "three layers and a configuration");
    fireclaw(&home, &["image", "rm", &name]).exits(0).says(&["removed image"]);
    assert_eq!(blobs(), 0);
    run(&["--pull", "never"]).exits(125).says(&["there is no image"]);
}

#[test]
fn indexes_zstd_and_digests_are_read_and_layers_are_shared() {
    let (registry, layout) = (Registry::start(), Layout::new());
    layout.config("base", "arm", &["--architecture", "arm64"]);
    layout.files("base", "/etc", &[("which", b"amd64\n")], &[]);
    layout.config("base", "amd", &["--config.cmd", "/bin/sh"]);
    registry.push(&layout, "arm", "app:arm", &[]);
    registry.push(&layout, "amd", "app:amd", &["--dest-compress-format", "zstd"]);
    let home = Home::with_images_of_its_own();
    let pull = |name: &str| fireclaw(&home, &["image", "pull", &registry.name(name)]);
    pull("app:arm").exits(1).says(&["linux/arm64", "linux/amd64"]);
    let done = pull("app:amd").exits(0).stderr();
    let digest = done.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();

    // One name for both platforms.
    let entry = |digest: &str, architecture: &str, size: u64| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": size, "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let size = |digest: &str| fs::metadata(registry.blob_file(digest)).unwrap().len();
    let arm = fs::read_to_string(
        registry
            .directory
            .path()
            .join("data/docker/registry/v2/repositories/app/_manifests/tags/arm/current/link"),
    )
    .unwrap();
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": kind,
        "manifests": [entry(&arm, "arm64", size(&arm)), entry(digest, "amd64", size(digest))],
    });
    registry.put_manifest("app", "both", kind, &index.to_string());
    let alone = serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [index["manifests"][0]] });
    registry.put_manifest("app", "alone", kind, &alone.to_string());
    let before = registry.blobs_sent();
    pull("app:both").exits(0).says(&[digest]);
    pull(&format!("app@{digest}")).exits(0);
    assert_eq!(registry.blobs_sent(), before, "all of it was here");
    pull("app:alone").exits(1).says(&["has no image for linux/amd64"]);
    let name = registry.name("app:both");
    let shown = home.run(["--image", &name, "cat /etc/which"]).exits(0);
    assert_eq!(shown.stdout(), "amd64\n");
    // One root file system for all its names.
    let images = fs::read_dir(home.path().join("images")).unwrap().count();
    assert_eq!(images, 2, "the base image and this one");
}

#[test]
fn a_private_registry_wants_to_know_who_asks() {
    let (registry, layout) = (Registry::private(), Layout::new());
    registry.push(&layout, "base", "secret:1", &[]);
    let home = Home::with_images_of_its_own();
    let docker = tempfile::tempdir().unwrap();
    let pull = || {
        let mut command = home.fireclaw(["image", "pull", &registry.name("secret:1")]);
        let path = std::env::var("PATH").unwrap();
        command.env("DOCKER_CONFIG", docker.path());
        // What is said in the clear goes through no proxy: this one would refuse it.
        command.env("http_proxy", "http://127.0.0.1:9");
        command.env("PATH", format!("{}:{path}", docker.path().display()));
        finish(command, Vec::new(), timeout())
    };
    pull().exits(1).says(&["denies access", "docker login localhost"]);
    let server = format!("localhost:{}", registry.port);
    let config = |value: serde_json::Value| {
        fs::write(docker.path().join("config.json"), value.to_string()).unwrap();
    };
    config(serde_json::json!({ "auths": { &server: { "auth": "YW5uOndyb25n" } } }));
    pull().exits(1).says(&["denies access"]);
    config(serde_json::json!({ "auths": { &server: { "auth": LOGIN } } }));
    let said = pull().exits(0).stderr();
    assert!(!said.contains("hunter2") && !said.contains(LOGIN), "{said}");

    // A helper that keeps it.
    fireclaw(&home, &["image", "rm", &registry.name("secret:1")]).exits(0);
    let helper = docker.path().join("docker-credential-test");
    let script =
        "#!/bin/sh\ncat >/dev/null; echo '{\"Username\":\"ann\",\"Secret\":\"hunter2\"}'\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    config(serde_json::json!({ "credHelpers": { &server: "test" } }));
    pull().exits(0);
}

#[test]
fn what_is_not_there_or_not_what_it_should_be_is_told_and_not_kept() {
    let (mut registry, layout) = (Registry::start(), Layout::new());
    layout.files("base", "/etc", &[("data", &noise(64 << 10))], &[]);
    registry.push(&layout, "base", "app:1", &[]);
    let home = Home::with_images_of_its_own();
    let pull = |name: &str| fireclaw(&home, &["image", "pull", name]);
    pull(&registry.name("app:2")).exits(1).says(&["has no image", "app:2"]);
    pull(&registry.name("nothing")).exits(1).says(&["has no image", "nothing:latest"]);
    pull("App").exits(1).says(&["is not an image name"]);
    pull(&format!("localhost:{}/app", free_port())).exits(1).says(&["refused", "hint: "]);

    // The registry sends other bytes under a layer's digest.
    let manifest = fs::read_to_string(layout.path().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let blob = |digest: &serde_json::Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        layout.path().join("blobs/sha256").join(hex)
    };
    let manifest = fs::read(blob(&index["manifests"][0]["digest"])).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].clone();
    let file = registry.blob_file(layer.as_str().unwrap());
    let whole = fs::read(&file).unwrap();
    let mut other = whole.clone();
    other[1000] ^= 1;
    fs::write(&file, &other).unwrap();
    pull(&registry.name("app:1")).exits(1).says(&["sent other bytes than sha256:"]);
    let name = layer.as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let there = || {
        let names = fs::read_dir(home.path().join("blobs/sha256")).unwrap().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).count()
    };
    assert_eq!(there(), 0);
    assert!(!fireclaw(&home, &["image", "ls"]).exits(0).stdout().contains("localhost"));
    fs::write(&file, &whole).unwrap();
    pull(&registry.name("app:1")).exits(0);
    assert_eq!(there(), 1);
    registry.stop();
}

#[test]
fn two_pulls_at_once_do_the_work_once() {
    let (registry, layout) = (Registry::start(), Layout::new());
    layout.files("base", "/etc", &[("data", &noise(8 << 20))], &[]);
    registry.push(&layout, "base", "app:1", &[]);
    let home = Home::with_images_of_its_own();
    let name = registry.name("app:1");
    let before = registry.blobs_sent();
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = home.fireclaw(["image", "pull", &name]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in children {
        crate::harness::finish_child(child, timeout()).exits(0);
    }
    assert_eq!(registry.blobs_sent() - before, 3, "two layers and a configuration");
}

/// Lets a connection pass, and the first ones that carry more than `most` bytes back only so
/// many; how many it broke off, and what was asked after that.
fn breaks_off(to: u16, most: usize, times: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, broken) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&broken);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (mut from, mut into) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(std::net::Shutdown::Write);
                });
                let (mut server, mut client, mut sent) = (server, client, 0);
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(n @ 1..) = server.read(&mut buffer) {
                    sent += n;
                    if sent > most && count.load(Ordering::SeqCst) < times {
                        count.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    if client.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (port, broken)
}

#[test]
fn a_pull_that_breaks_off_goes_on_where_it_was() {
    let (registry, layout) = (Registry::start(), Layout::new());
    layout.files("base", "/etc", &[("data", &noise(8 << 20))], &[]);
    registry.push(&layout, "base", "app:1", &[]);
    let home = Home::with_images_of_its_own();
    let (port, broken) = breaks_off(registry.port, 2 << 20, 2);
    fireclaw(&home, &["image", "pull", &format!("localhost:{port}/app:1")]).exits(0);
    assert_eq!(broken.load(Ordering::SeqCst), 2);
    // What had come was not asked for again.
    let log = fs::read_to_string(registry.log()).unwrap();
    let sent = log.lines().rev().find_map(|line| {
        let (_, after) = line.split_once("/blobs/")?.1.split_once(" HTTP/1.1\" 206 ")?;
        after.split(' ').next()?.parse::<usize>().ok()
    });
    assert!(sent.is_some_and(|sent| sent < 7 << 20), "{sent:?} in {log}");
}
