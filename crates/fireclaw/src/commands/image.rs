//! `fireclaw image`: what VMs can boot from.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use comfy_table::{Table, presets};
use fireclaw_host::PathError;
use fireclaw_image::{Home, Manifest};
use fireclaw_registry::Reference;
use fireclaw_say::say;

use super::{print, print_json};
use crate::error::{CliError, Kind, Result};
use crate::progress::Screen;
use crate::pull;

/// List, add and remove images
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fireclaw image ls
  fireclaw image pull python:3.12
  docker export $(docker create alpine) | fireclaw image add alpine -
  docker save debian | fireclaw image add debian -
  fireclaw run --image alpine \"cat /etc/alpine-release\"
  fireclaw image prune")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List images and kernels
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Pull an image from a registry
    ///
    /// Layers that are here already are not fetched again, and a pull that broke off continues.
    /// Credentials are those of `docker login`.
    Pull {
        /// The image: python:3.12, ghcr.io/owner/name, localhost:5000/app@sha256:…
        name: String,
    },
    /// Show how an image is run, and where it came from
    Inspect {
        /// The image
        name: String,
    },
    /// Import an image from an archive (tar, also gzip, xz or zstd)
    ///
    /// The archive holds a root file system, or a layered image as written by `docker save`,
    /// `podman save` or `skopeo`.
    Add {
        /// The image's name
        name: String,
        /// Archive; - reads standard input
        archive: PathBuf,
        /// Image to import if the archive holds several: its full name or its tag
        #[arg(long)]
        tag: Option<String>,
    },
    /// Remove an image
    Rm {
        /// The image's name
        name: String,
    },
    /// Remove unused files
    Prune {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Does what was asked.
pub fn execute(args: Args) -> Result<u8> {
    let home = Home::from_environment();
    let screen = Screen::new();
    match args.action {
        Action::Ls { json } => list(&Manifest::read(&home)?, json)?,
        Action::Pull { name } => {
            let image = pull::pull(&home, &Reference::parse(&name)?)?;
            let digest = image.pulled.map(|origin| origin.digest).unwrap_or_default();
            say!("image {}: {} MiB, {digest}", image.origin, image.rootfs.bytes >> 20);
        }
        Action::Inspect { name } => {
            let name = pull::ensure(&home, &name, pull::When::Never)?;
            let mut manifest = Manifest::read(&home)?;
            print_json(&manifest.images.remove(&name))?;
        }
        Action::Add { name, archive, tag } => {
            let origin = archive.display().to_string();
            let tar = open(&archive)?;
            let tag = tag.as_deref();
            let image = fireclaw_image::add_image(&home, &name, tar, &origin, tag, &screen)?;
            say!("image {name}: {} MiB", image.rootfs.bytes >> 20);
        }
        Action::Rm { name } => {
            let name = pull::ensure(&home, &name, pull::When::Never)?;
            fireclaw_image::remove_image(&home, &name, &screen)?;
            let bytes = fireclaw_image::prune(&home, &screen)?.bytes + pull::prune_layers(&home)?;
            say!("removed image {name}, freed {} MiB", bytes >> 20);
        }
        Action::Prune { json } => {
            let mut pruned = fireclaw_image::prune(&home, &screen)?;
            pruned.bytes += pull::prune_layers(&home)?;
            if json {
                print_json(&pruned)?;
            } else {
                for file in &pruned.files {
                    print(&file.display().to_string())?;
                }
                say!("removed {} files, freed {} MiB", pruned.files.len(), pruned.bytes >> 20);
            }
        }
    }
    Ok(0)
}

fn open(archive: &Path) -> Result<Box<dyn Read>> {
    if archive == Path::new("-") {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            let problem = "an archive is expected on standard input, which is a terminal";
            return Err(CliError::new(Kind::Usage, problem)
                .hint("docker export CONTAINER | fireclaw image add NAME -"));
        }
        return Ok(Box::new(stdin.lock()));
    }
    match File::open(archive) {
        Ok(file) => Ok(Box::new(file)),
        Err(e) => Err(PathError::at("open", archive)(e).into()),
    }
}

fn list(manifest: &Manifest, json: bool) -> Result<()> {
    if json {
        return print_json(manifest);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["KIND", "NAME", "MIB", "SHA-256", "ORIGIN"]);
    let used = manifest.kernel().map(|(name, _)| name);
    for (name, kernel) in &manifest.kernels {
        let kind = if used == Some(name) { "kernel (used)" } else { "kernel" };
        let mib = (kernel.image.bytes >> 20).to_string();
        let origin = format!("{}, {}", kernel.release, kernel.origin);
        table.add_row([kind, name, &mib, short(&kernel.image.sha256), &origin]);
    }
    for (name, image) in &manifest.images {
        let mib = (image.rootfs.bytes >> 20).to_string();
        table.add_row(["image", name, &mib, short(&image.rootfs.sha256), &image.origin]);
    }
    print(&table.to_string())
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
