//! `fireclaw template`: what agents are made from.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use comfy_table::{Table, presets};
use fireclaw_image::Home;
use fireclaw_template::{Error, Store, check_file};

use super::print;
use crate::error::{CliError, Kind, Result};

/// List, show and check templates
///
/// Fireclaw ships five templates. Files in FIRECLAW_HOME/templates (TOML, or legacy JSON) add
/// to them, and override those of the same name.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw template ls
  fireclaw template show worker > ~/.fireclaw/templates/mine.toml
  fireclaw template check mine
  fireclaw template check ./other.toml")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List templates
    Ls,
    /// Print a template
    Show {
        /// Its name
        name: String,
    },
    /// Check templates and explain every mistake; exits 1 if there is one
    Check {
        /// Names or files [default: all templates]
        names: Vec<String>,
    },
}

/// Does what was asked.
pub fn execute(args: &Args) -> Result<u8> {
    let store = Store::open([directory()]);
    match &args.action {
        Action::Ls => {
            let mut table = Table::new();
            table.load_preset(presets::NOTHING).set_header(["NAME", "MODEL", "FROM", "WHAT"]);
            for entry in store.list().map_err(error)? {
                let (model, what) = match store.get(&entry.name) {
                    Ok(template) => (template.model.unwrap_or_default(), template.description),
                    Err(_) => (String::new(), "it has mistakes".into()),
                };
                table.add_row([entry.name, model, entry.origin.to_string(), what]);
            }
            print(&table.to_string()).map(|()| 0)
        }
        Action::Show { name } => {
            let (text, _) = store.text(name).map_err(error)?;
            print(text.trim_end()).map(|()| 0)
        }
        Action::Check { names } => check(&store, names),
    }
}

fn directory() -> PathBuf {
    Home::from_environment().root().join("templates")
}

fn check(store: &Store, names: &[String]) -> Result<u8> {
    let all: Vec<String> = match names {
        [] => store.list().map_err(error)?.into_iter().map(|entry| entry.name).collect(),
        names => names.to_vec(),
    };
    let mut wrong = false;
    for name in all {
        let is_file = name.contains('/') || name.ends_with(".toml") || name.ends_with(".json");
        let checked = if is_file { check_file(Path::new(&name)) } else { store.check(&name) };
        match checked {
            Ok((_, warnings)) => {
                for warning in &warnings {
                    print(&format!("{warning}\n"))?;
                }
                print(&format!("{name}: fine"))?;
            }
            Err(Error::Mistakes { mistakes, .. }) => {
                wrong = true;
                for mistake in &mistakes {
                    print(&format!("{mistake}\n"))?;
                }
                print(&format!("{name}: {} mistakes", mistakes.len()))?;
            }
            Err(e) => return Err(error(e)),
        }
    }
    Ok(u8::from(wrong))
}

fn error(error: Error) -> CliError {
    CliError::new(Kind::Usage, error.to_string())
}
