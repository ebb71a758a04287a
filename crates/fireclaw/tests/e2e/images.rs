//! Set-up and images.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{
    Done, Home, alone, binary, finish, finish_child, is_alive, patience, process_of, signal, wait,
    wait_until,
};

fn fireclaw(home: &Home, arguments: &[&str]) -> Done {
    finish(home.fireclaw(arguments), Vec::new(), patience())
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

#[test]
fn any_root_file_system_boots_unmodified() {
    let home = Home::new();
    // An images folder of its own: the shared one is not for writing.
    let shared = fs::read_link(home.path().join("images")).unwrap();
    fs::remove_file(home.path().join("images")).unwrap();
    fs::create_dir(home.path().join("images")).unwrap();
    std::os::unix::fs::symlink(shared.join("base.ext4"), home.path().join("images/base.ext4"))
        .unwrap();
    let add = home.fireclaw(["images", "add", "tiny", "-"]);
    finish(add, busybox_root(), patience()).exits(0);

    let script = "id -u && ls / && echo x > /new && cat /new && uname -n";
    let done = home.run(["--image", "tiny", script]).exits(0);
    let stdout = done.stdout();
    assert!(stdout.starts_with("0\n") && stdout.contains("x\nfireclaw-"), "{stdout}");
    home.run(["--image", "tiny", "--", "/bin/sh", "-c", "exit 9"]).exits(9);
    home.run(["--image", "tiny", "--user", "agent", "true"]).exits(125).says(&["no user"]);

    let list = fireclaw(&home, &["images", "ls"]).exits(0).stdout();
    assert!(list.contains("tiny") && list.contains("base"), "{list}");
    fireclaw(&home, &["images", "rm", "tiny"]).exits(0);
    fireclaw(&home, &["images", "rm", "tiny"]).exits(1).says(&["no image named", "base"]);
    home.run(["--image", "tiny", "true"]).exits(125);
    home.is_clean();
}

#[test]
fn what_is_no_root_file_system_is_refused() {
    let home = Home::empty();
    for (name, input, said) in [
        ("a/b", busybox_root(), "cannot be a name"),
        (&"x".repeat(300)[..], busybox_root(), "cannot be a name"),
        ("empty", Vec::new(), "cannot make an image"),
        ("noise", b"this is not a tar archive".repeat(100), "cannot make an image"),
    ] {
        let add = home.fireclaw(["images", "add", name, "-"]);
        finish(add, input, patience()).exits(1).says(&[said]);
    }
    let left = fs::read_dir(home.path().join("images")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a refused archive leaves nothing");
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
    wait(&mut first, patience());
    let done = finish_child(second, patience()).exits(0);
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
    let pruned = fireclaw(&home, &["images", "prune"]).exits(0);
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
    let mut add = home.fireclaw(["images", "add", "cut", "-"]);
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
    wait(&mut child, patience());
    let left = new();
    let partial = format!(".ext4.partial-{}", child.id());
    let is_partial = |file: &str| file.contains("images/cut-") && file.ends_with(&partial);
    assert!(left.len() == 1 && is_partial(&left[0]), "{left:?}");
    // Also what would replace the manifest.
    let dead = home.path().join(format!("manifest.json.partial-{}", child.id()));
    fs::write(&dead, "{").unwrap();
    fireclaw(&home, &["images", "prune"]).exits(0);
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
    finish_child(child, patience()).exits(130).says(&["interrupted", "goes on where it was"]);
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
    finish(command, Vec::new(), patience()).exits(1).says(&[
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
    let done = finish(command, busybox_root(), patience()).exits(1).says(&["no space left"]);
    assert!(!done.stderr().contains("images/"), "{}", done.stderr());
}

#[test]
fn no_mmdebstrap_is_said_with_how_to_get_it() {
    let home = Home::empty();
    let mut command = home.fireclaw(["setup"]);
    command.env("PATH", "/nonexistent");
    finish(command, Vec::new(), patience())
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
