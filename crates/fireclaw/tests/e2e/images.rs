//! Set-up and images.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{
    Done, Home, alone, binary, finish, finish_child, is_alive, process_of, signal, timeout, wait,
    wait_until,
};

fn fireclaw(home: &Home, arguments: &[&str]) -> Done {
    finish(home.fireclaw(arguments), Vec::new(), timeout())
}

/// A root file system that has nothing of ours and almost nothing at all.
fn busybox_root() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("Debian's busybox-static, see the Makefile");
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, name, data).unwrap();
    };
    add("bin/", tar::EntryType::Directory, 0o755, "", b"");
    add("bin/busybox", tar::EntryType::Regular, 0o755, "", &busybox);
    for applet in ["sh", "cat", "uname", "ls", "echo", "id"] {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, "busybox", b"");
    }
    tar.into_inner().unwrap()
}

/// One file as an archive holds it; `pax` are its extended headers.
fn entry(
    tar: &mut tar::Builder<Vec<u8>>,
    (kind, name, link, mode): (tar::EntryType, &[u8], &str, u32),
    data: &[u8],
    pax: &[(&str, &[u8])],
) {
    tar.append_pax_extensions(pax.iter().copied()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(data.len() as u64);
    header.set_cksum();
    tar.append(&header, data).unwrap();
}

/// The guest's kernel is the judge of what was written: names that are not UTF-8, links,
/// holes, owners, capabilities.
#[test]
fn a_guest_sees_what_was_in_the_archive() {
    use tar::EntryType::{Fifo, Link, Regular, Symlink};
    let home = Home::with_images_of_its_own();
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    // CAP_DAC_READ_SEARCH, permitted and effective (<linux/capability.h>, revision 2).
    let capability = [1, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capable = [("SCHILY.xattr.security.capability", &capability[..])];
    let hole = [("GNU.sparse.map", &b"1048576,3"[..]), ("GNU.sparse.size", b"1048579")];
    let plain: &[(&str, &[u8])] = &[];
    for (kind, name, link, mode, data, pax) in [
        (Symlink, &b"bin"[..], "/usr/bin", 0o777, &b""[..], plain),
        (Regular, b"bin/busybox", "", 0o755, &busybox, plain),
        (Regular, b"cap/cat", "", 0o755, &busybox, &capable),
        (Regular, b"secret", "", 0o600, b"read\n", plain),
        (Regular, b"odd-\xe9", "", 0o644, b"1", plain),
        (Regular, b"odd-\xff", "", 0o644, b"2", plain),
        (Link, b"a/second", "secret", 0o600, b"", plain),
        (Regular, b"sparse", "", 0o644, b"end", &hole),
        (Fifo, b"pipe", "", 0o604, b"", plain),
    ] {
        entry(&mut tar, (kind, name, link, mode), data, pax);
    }
    for applet in ["sh", "cat", "stat", "od", "tail"] {
        let name = format!("bin/{applet}");
        entry(&mut tar, (Symlink, name.as_bytes(), "busybox", 0o777), b"", plain);
    }
    let add = home.fireclaw(["image", "add", "rich", "-"]);
    finish(add, tar.into_inner().unwrap(), timeout()).exits(0);

    let script = "for f in /odd-*; do printf '%s=' \"$f\"; cat \"$f\"; done | od -An -tx1
        stat -c '%h %a %u %Y' /a/second; stat -c '%s %b' /sparse; tail -c 4 /sparse | od -An -c
        stat -c '%F %a' /pipe; stat -c %N /bin";
    let done = home.run(["--image", "rich", script]).exits(0);
    let words: Vec<_> = done.stdout().split_whitespace().map(str::to_owned).collect();
    let expected = "2f 6f 64 64 2d e9 3d 31 2f 6f 64 64 2d ff 3d 32 2 600 0 1000000000 \
                    1048579 8 \\0 e n d fifo 604 '/bin' -> '/usr/bin'";
    assert_eq!(words.join(" "), expected);

    let as_user =
        |program: &str| home.run(["--image", "rich", "--user", "999", "--", program, "/secret"]);
    as_user("/bin/cat").exits(1);
    assert_eq!(as_user("/cap/cat").exits(0).stdout(), "read\n");
    home.is_clean();
}

/// An archive as `docker save` writes it, of two images with layers.
fn saved_images() -> Vec<u8> {
    use tar::EntryType::Regular;
    let layer = |files: &[(&[u8], &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in files {
            entry(&mut tar, (Regular, name, "", 0o755), data, &[]);
        }
        tar.into_inner().unwrap()
    };
    let layers = [
        busybox_root(),
        layer(&[(b"etc/which", b"one"), (b"etc/gone", b"x")]),
        layer(&[(b"etc/which", b"two"), (b"etc/.wh.gone", b"")]),
    ];
    let digest = |bytes: &[u8]| {
        let sum = finish(Command::new("sha256sum"), bytes.to_vec(), timeout()).stdout();
        sum.split_whitespace().next().unwrap().to_owned()
    };
    let ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
    let mut files: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(n, layer)| (format!("{n}/layer.tar"), layer.clone()))
        .collect();
    let mut list = Vec::new();
    for (tag, count) in [("test:one", 2), ("test:two", 3)] {
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": ids[..count] },
        });
        let config = config.to_string().into_bytes();
        let name = format!("{}.json", digest(&config));
        files.push((name.clone(), config));
        let layers: Vec<_> = (0..count).map(|n| format!("{n}/layer.tar")).collect();
        list.push(serde_json::json!({ "Config": name, "RepoTags": [tag], "Layers": layers }));
    }
    files.push(("manifest.json".to_owned(), serde_json::json!(list).to_string().into_bytes()));
    let files: Vec<_> = files.iter().map(|(name, data)| (name.as_bytes(), &data[..])).collect();
    layer(&files)
}

#[test]
fn a_saved_image_boots_with_its_layers() {
    let home = Home::with_images_of_its_own();
    let archive = home.path().join("saved.tar");
    fs::write(&archive, saved_images()).unwrap();
    let archive = archive.to_str().unwrap();
    fireclaw(&home, &["image", "add", "saved", archive]).exits(1).says(&[
        "has several images",
        "--tag",
        "test:one, test:two",
    ]);
    fireclaw(&home, &["image", "add", "saved", "--tag", "two", archive]).exits(0);
    let done = home.run(["--image", "saved", "cat /etc/which; ls /etc"]).exits(0);
    assert!(done.stdout().starts_with("two"), "{}", done.stdout());
    assert!(!done.stdout().contains("gone"), "{}", done.stdout());
    home.is_clean();
}

#[test]
fn a_terminal_is_not_waited_for_as_an_archive() {
    let home = Home::empty();
    let line = format!("{} images add x -", binary().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("FIRECLAW_HOME", home.path());
    let done = finish(command, Vec::new(), timeout());
    let said = done.stdout() + &done.stderr();
    assert!(said.contains("which is a terminal") && said.contains("docker export"), "{said}");
}

#[test]
fn any_root_file_system_boots_unmodified() {
    let home = Home::with_images_of_its_own();
    let add = home.fireclaw(["image", "add", "tiny", "-"]);
    finish(add, busybox_root(), timeout()).exits(0);

    let script = "id -u && ls / && echo x > /new && cat /new && uname -n";
    let done = home.run(["--image", "tiny", script]).exits(0);
    let stdout = done.stdout();
    assert!(stdout.starts_with("0\n") && stdout.contains("x\nfireclaw-"), "{stdout}");
    home.run(["--image", "tiny", "--", "/bin/sh", "-c", "exit 9"]).exits(9);
    home.run(["--image", "tiny", "--user", "agent", "true"]).exits(125).says(&["no user"]);

    let list = fireclaw(&home, &["image", "ls"]).exits(0).stdout();
    assert!(list.contains("tiny") && list.contains("base"), "{list}");
    fireclaw(&home, &["image", "rm", "tiny"]).exits(0);
    fireclaw(&home, &["image", "rm", "tiny"]).exits(1).says(&["no image named", "base"]);
    home.run(["--image", "tiny", "true"]).exits(125);
    home.is_clean();
}

#[test]
fn what_is_no_root_file_system_is_refused() {
    let home = Home::empty();
    for (name, input, said) in [
        ("a/b", busybox_root(), "cannot be a name"),
        (&"x".repeat(300)[..], busybox_root(), "cannot be a name"),
        ("empty", Vec::new(), "cannot import"),
        ("noise", b"this is not a tar archive".repeat(100), "cannot import"),
        ("below", one_file("rootfs/bin/sh"), "tar -C rootfs -cf - ."),
        ("layer", one_file("etc/.wh.old"), "docker save"),
    ] {
        let add = home.fireclaw(["image", "add", name, "-"]);
        finish(add, input, timeout()).exits(1).says(&[said]);
    }
    let left = fs::read_dir(home.path().join("images")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a refused archive leaves nothing");
}

fn one_file(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    entry(&mut tar, (tar::EntryType::Regular, name.as_bytes(), "", 0o755), b"x", &[]);
    tar.into_inner().unwrap()
}

fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.metadata().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// A fresh home, two set-ups at once, one of them killed in the middle: the
/// other finishes, and a third has nothing left to do.
#[test]
fn set_up_survives_being_killed_and_doubled() {
    let _alone = alone();
    let home = Home::empty();
    let start = || {
        let mut setup = home.fireclaw(["setup"]);
        setup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = start();
    wait_until("the kernel to be recorded", || {
        fs::read_to_string(home.path().join("manifest.json")).is_ok_and(|m| m.contains("debian"))
    });
    let second = start();
    // The base image is half done when the first set-up dies.
    wait_until("the base image to be begun", || {
        fs::read_dir(home.path().join("images")).is_ok_and(|d| d.count() > 0)
    });
    signal(&first, Signal::KILL);
    wait(&mut first, timeout());
    let done = finish_child(second, timeout()).exits(0);
    assert!(done.stderr().contains("another set-up is at work"), "{}", done.stderr());
    assert!(
        !done.stderr().contains("downloading packages with apt\n[1/3]"),
        "the kernel is not fetched again"
    );

    let manifest = fs::read_to_string(home.path().join("manifest.json")).unwrap();
    let third = fireclaw(&home, &["setup"]).exits(0);
    assert!(!third.stderr().contains("apt"), "{}", third.stderr());
    assert_eq!(fs::read_to_string(home.path().join("manifest.json")).unwrap(), manifest);
    let partial: Vec<_> =
        files_below(home.path()).into_iter().filter(|f| f.contains(".partial")).collect();
    assert!(partial.is_empty(), "{partial:?}");

    // Damage is found and mended.
    let kernel = files_below(&home.path().join("kernels"))
        .into_iter()
        .find(|f| f.ends_with("modules.cpio"))
        .unwrap();
    let whole = fs::read(&kernel).unwrap();
    fs::write(&kernel, vec![0; whole.len()]).unwrap();
    fireclaw(&home, &["doctor"]);
    fireclaw(&home, &["setup"]).exits(0);
    assert!(fs::read(&kernel).unwrap() == whole);
    home.run(["true"]).exits(0);

    // What an older Fireclaw left goes with prune, what is used stays.
    fs::write(home.path().join("initramfs/old.cpio"), "old").unwrap();
    let pruned = fireclaw(&home, &["image", "prune"]).exits(0);
    assert_eq!(pruned.stdout(), "initramfs/old.cpio\n");
    home.run(["true"]).exits(0);
    home.is_clean();
}

#[test]
fn a_killed_import_leaves_one_partial_file_until_the_home_is_changed_again() {
    let home = Home::new();
    // Images of its own: others are not to be disturbed.
    fs::remove_file(home.path().join("images")).unwrap();
    fs::create_dir(home.path().join("images")).unwrap();
    let before = files_below(home.path());
    let mut add = home.fireclaw(["image", "add", "cut", "-"]);
    add.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = add.spawn().unwrap();
    // The beginning of an archive with a large file, and no end.
    let mut header = tar::Header::new_gnu();
    header.set_path("big").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(header.as_bytes()).unwrap();
    stdin.write_all(&[0; 64 << 10]).unwrap();
    let new = || {
        let mut files = files_below(home.path());
        files.retain(|file| !before.contains(file) && !file.ends_with("setup.lock"));
        files
    };
    wait_until("the image to be begun", || !new().is_empty());
    signal(&child, Signal::KILL);
    wait(&mut child, timeout());
    let left = new();
    let partial = format!(".ext4.partial-{}", child.id());
    let is_partial = |file: &str| file.contains("images/cut-") && file.ends_with(&partial);
    assert!(left.len() == 1 && is_partial(&left[0]), "{left:?}");
    // Also what would replace the manifest.
    let dead = home.path().join(format!("manifest.json.partial-{}", child.id()));
    fs::write(&dead, "{").unwrap();
    fireclaw(&home, &["image", "prune"]).exits(0);
    assert!(new().is_empty(), "{:?}", new());
    home.is_clean();
}

#[test]
fn an_interrupted_set_up_leaves_nothing() {
    let home = Home::empty();
    let mut setup = home.fireclaw(["setup"]);
    let child = setup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mmdebstrap = process_of(&child, "mmdebstrap");
    signal(&child, Signal::INT);
    finish_child(child, timeout()).exits(130).says(&["interrupted", "continue where it stopped"]);
    wait_until("mmdebstrap to end", || !is_alive(mmdebstrap));
    home.is_clean();
    let left: Vec<_> =
        files_below(home.path()).into_iter().filter(|file| !file.ends_with("setup.lock")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn too_little_space_is_said_before_anything_is_fetched() {
    let home = Home::empty();
    // A small disk of its own, in a mount namespace that ends with the command.
    let script = "mount -t tmpfs -o size=64M none \"$FIRECLAW_HOME\" && exec \"$0\" setup";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(binary());
    command.env("FIRECLAW_HOME", home.path());
    finish(command, Vec::new(), timeout()).exits(1).says(&[
        "no space left",
        "1500 MiB are needed",
        "hint:",
    ]);
}

#[test]
fn an_image_that_outgrows_the_disk_leaves_nothing() {
    let home = Home::empty();
    let script = "mount -t tmpfs -o size=1M none \"$FIRECLAW_HOME\" || exit 77
        \"$0\" images add big - ; code=$?
        find \"$FIRECLAW_HOME\" -type f ! -name '*.lock' >&2; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(binary());
    command.env("FIRECLAW_HOME", home.path());
    let done = finish(command, busybox_root(), timeout()).exits(1).says(&["no space left"]);
    assert!(!done.stderr().contains("images/"), "{}", done.stderr());
}

#[test]
fn no_mmdebstrap_is_said_with_how_to_get_it() {
    let home = Home::empty();
    let mut command = home.fireclaw(["setup"]);
    command.env("PATH", "/nonexistent");
    finish(command, Vec::new(), timeout())
        .exits(1)
        .says(&["mmdebstrap is not installed", "apt-get install mmdebstrap"]);
}

#[test]
fn a_mirror_that_does_not_answer_is_said() {
    let home = Home::empty();
    let done = fireclaw(&home, &["setup", "--mirror", "http://127.0.0.1:9/debian"]);
    done.exits(1).says(&["mmdebstrap failed", "--mirror", "127.0.0.1"]);
    assert!(!home.path().join("manifest.json").exists());
}
