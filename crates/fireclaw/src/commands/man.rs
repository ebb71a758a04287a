//! `fireclaw man`: manual pages from the same source as `--help`.

use std::path::PathBuf;

use fireclaw_host::PathError;

use crate::error::Result;

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
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(PathError::at("create", dir))?;
            clap_mangen::generate_to(cli, dir).map_err(PathError::at("write to", dir))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(cli)
                .render(&mut page)
                .map_err(PathError::at("write", "standard output"))?;
            super::print(String::from_utf8_lossy(&page).trim_end())?;
        }
    }
    Ok(0)
}
