//! `fireclaw setup`: set up this host.

use std::path::PathBuf;

use fireclaw_image::{Home, Options};
use fireclaw_say::say;

use crate::error::Result;
use crate::preparation::prepare;

/// Set up this host: kernel, base image, initramfs
///
/// Downloads Debian's cloud kernel and builds a Debian base image under FIRECLAW_HOME. Needs no
/// root where unprivileged user namespaces are allowed. Keeps what is intact and rebuilds what
/// is missing or damaged, so you can interrupt it and run it again at any time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw setup
  fireclaw setup --mirror http://mirror.example/debian
  fireclaw setup --kernel ./vmlinux       use a kernel of your own
  fireclaw setup --force                  rebuild everything")]
pub struct Args {
    /// Debian mirror to use instead of the host's
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,

    /// Use this kernel (vmlinux or bzImage, drivers built in) instead of Debian's
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Rebuild everything, and forget an earlier --kernel
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
    say!("ready: data directory {}", home.root().display());
    Ok(0)
}
