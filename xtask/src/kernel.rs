//! `cargo xtask kernel`: a guest kernel with everything built in.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use fireclaw_image::Home;
use fireclaw_say::say;

/// What the build needs, as Debian packages.
const PACKAGES: &str = "linux-source-6.1 build-essential flex bison bc libelf-dev xz-utils";

const CONFIG: &str = "xtask/kernel/fireclaw.config";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel source archive
    #[arg(long, default_value = "/usr/src/linux-source-6.1.tar.xz")]
    source: PathBuf,
}

/// Builds the kernel and adds it to the home.
pub fn run(args: &Args) -> Result<()> {
    ensure!(
        args.source.is_file(),
        "{} is not there; apt-get install {PACKAGES}",
        args.source.display()
    );
    let work = crate::root().join("target/kernel");
    fs::create_dir_all(&work)?;
    let tree = unpacked(&args.source, &work)?;
    let fragment = fs::read_to_string(crate::root().join(CONFIG))?;
    make(&tree, &["tinyconfig"])?;
    let config = tree.join(".config");
    let tiny = fs::read_to_string(&config)?;
    fs::write(&config, format!("{tiny}\n{fragment}"))?;
    make(&tree, &["olddefconfig"])?;
    check(&fragment, &fs::read_to_string(&config)?)?;
    build(&tree)?;
    let release = fs::read_to_string(tree.join("include/config/kernel.release"))?;
    let release = release.trim();
    let stripped = work.join("vmlinux");
    let strip = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([&stripped, &tree.join("vmlinux")])
        .status()
        .context("strip")?;
    ensure!(strip.success(), "strip failed");
    let home = Home::from_environment();
    fireclaw_image::add_minimal_kernel(&home, &stripped, release, CONFIG, &crate::Plain)?;
    say!("kernel {release} is in {} and will be used from now on", home.root().display());
    Ok(())
}

fn unpacked(source: &Path, work: &Path) -> Result<PathBuf> {
    let name = source.file_name().unwrap_or_default().to_string_lossy().replace(".tar.xz", "");
    let tree = work.join(name);
    let done = tree.join(".unpacked");
    if !done.exists() {
        say!("unpacking {}", source.display());
        let status = Command::new("tar")
            .arg("-xf")
            .arg(source)
            .arg("-C")
            .arg(work)
            .status()
            .context("tar")?;
        ensure!(status.success(), "tar failed");
        fs::write(done, "")?;
    }
    Ok(tree)
}

fn make(tree: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("make")
        .arg("-s")
        .args(arguments)
        .current_dir(tree)
        .output()
        .with_context(|| format!("make; apt-get install {PACKAGES}"))?;
    if !output.status.success() {
        bail!("make {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A symbol that the configuration lost has a dependency that is not met.
fn check(fragment: &str, config: &str) -> Result<()> {
    let lost: Vec<&str> = fragment
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !line.ends_with("=n"))
        .filter(|line| !config.lines().any(|have| have == *line))
        .collect();
    ensure!(lost.is_empty(), "this kernel does not take: {}", lost.join(" "));
    Ok(())
}

/// Builds and counts the compiled files.
fn build(tree: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("make")
        .arg(format!("-j{jobs}"))
        .arg("vmlinux")
        .current_dir(tree)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = make.stdout.take().context("make has no output")?;
    let mut built = 0;
    for line in BufReader::new(stdout).lines() {
        if line?.trim_start().starts_with("CC") {
            built += 1;
            if built % 50 == 0 {
                say!("compiled {built} files");
            }
        }
    }
    ensure!(make.wait()?.success(), "the build failed; is everything there? {PACKAGES}");
    Ok(())
}
