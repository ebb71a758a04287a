//! `fireclaw man`: manual pages from the same source as `--help`.

use std::path::{Path, PathBuf};

use crate::error::{CliError, Result};

/// Write the manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw man | man -l -
  fireclaw man --dir ~/.local/share/man/man1 && man fireclaw-run")]
pub struct Args {
    /// Write all pages to this directory instead of printing the first
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes the pages.
pub fn execute(args: &Args, cli: clap::Command) -> Result<u8> {
    let failed = |path: &Path, e| CliError::file("write", path, &e);
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
            clap_mangen::generate_to(cli, dir).map_err(|e| failed(dir, e))?;
        }
        None => {
            let mut page = Vec::new();
            let stdout = Path::new("standard output");
            clap_mangen::Man::new(cli).render(&mut page).map_err(|e| failed(stdout, e))?;
            super::print(String::from_utf8_lossy(&page).trim_end())?;
        }
    }
    Ok(0)
}
