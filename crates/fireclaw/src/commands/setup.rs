//! `fireclaw setup`: prepare this machine once.

use std::path::PathBuf;

use fireclaw_image::{Home, Options};
use fireclaw_say::say;

use crate::error::Result;
use crate::preparation::prepare;

/// Prepare this machine once: kernel, base image, initramfs
///
/// Fetches Debian's kernel for virtual machines and builds a Debian base image
/// under FIRECLAW_HOME. Needs no root where user namespaces are allowed. What
/// is there and whole is kept; what is missing or damaged is made anew, so it
/// can be interrupted and run again at any time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw setup
  fireclaw setup --mirror http://mirror.example/debian
  fireclaw setup --kernel ./vmlinux       use a kernel of your own
  fireclaw setup --force                  fetch and build everything anew")]
pub struct Args {
    /// An apt mirror for Debian packages instead of the host's own
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Use this kernel (vmlinux or bzImage, drivers built in) instead of Debian's
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Make everything anew, and forget a kernel given earlier
    #[arg(long)]
    force: bool,
}

/// Prepares the home.
pub fn execute(args: &Args) -> Result<u8> {
    let home = Home::from_environment();
    let options = Options {
        mirror: args.mirror.as_deref(),
        kernel: args.kernel.as_deref(),
        force: args.force,
        ..Options::default()
    };
    prepare(&home, &options)?;
    say!("ready: everything is in {}", home.root().display());
    Ok(0)
}
