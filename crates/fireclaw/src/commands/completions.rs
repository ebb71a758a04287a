//! `fireclaw completions`: what a shell needs to complete our command line.

use clap_complete::Shell;

use crate::error::Result;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw completions bash > ~/.local/share/bash-completion/completions/fireclaw
  fireclaw completions zsh > ~/.zfunc/_fireclaw
  fireclaw completions fish > ~/.config/fish/completions/fireclaw.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn execute(args: &Args, mut cli: clap::Command) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "fireclaw", &mut script);
    super::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(0)
}
