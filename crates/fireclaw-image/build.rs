//! Builds the guest program, which this crate carries inside itself.
//!
//! It has to be static, because it starts before any file system is there, and
//! `crt-static` cannot be set for one package of a build; so cargo is run for
//! it alone, in a target directory of its own.

#![allow(clippy::disallowed_macros, reason = "cargo reads what these print")]

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    // Asked when it runs: the script itself may have been built somewhere else.
    let crates = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    for watched in [
        "fireclaw-agent/src",
        "fireclaw-agent/Cargo.toml",
        "fireclaw-guest/src",
        "fireclaw-guest/Cargo.toml",
        "fireclaw-protocol/src",
        "fireclaw-protocol/Cargo.toml",
        "../Cargo.toml",
        "../Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={}", crates.join(watched).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let build = out.join("guest");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--locked", "--quiet", "--profile", "guest", "--target", TARGET, "--bins"])
        .arg("--manifest-path")
        .arg(crates.join("fireclaw-guest/Cargo.toml"))
        .arg("--target-dir")
        .arg(&build)
        // What the outer cargo set for the host's build is not for the guest.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building the guest program failed: {status}")),
        Err(e) => fail(&format!("cannot run cargo for the guest program: {e}")),
    }
    let binary = |name: &str| build.join(TARGET).join("guest").join(name);
    println!("cargo:rustc-env=FIRECLAW_GUEST={}", binary("fireclaw-guest").display());
    println!("cargo:rustc-env=FIRECLAW_FLOOR={}", binary("fireclaw-floor").display());
}

fn fail(problem: &str) -> ! {
    eprintln!("{problem}");
    exit(1);
}
