//! Images that are not here yet.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use fireclaw_host::PathError;
use fireclaw_image::{Home, Image, Manifest, Pulled};
use fireclaw_registry::{Reference, Registry, Store, Watch};
use fireclaw_say::say;
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{CliError, Kind, Result};
use crate::progress::Screen;
use crate::runtime::runtime;
use crate::signals::Signals;

/// What VMs here are, in the words of registries.
const PLATFORM: (&str, &str) = ("linux", "amd64");

/// When an image is pulled from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum When {
    /// If it is not here
    #[default]
    Missing,
    /// Each time, which costs a request if it has not changed
    Always,
    /// Not at all
    Never,
}

/// The name under which an image is here: one that was imported under it, or the full name of
/// one from a registry, which is pulled if that may be.
pub fn ensure(home: &Home, wanted: &str, when: When) -> Result<String> {
    let manifest = Manifest::read(home)?;
    let is_local = |name: &str| manifest.images.get(name).is_some_and(|it| it.pulled.is_none());
    if wanted == Manifest::BASE_IMAGE || is_local(wanted) {
        return Ok(wanted.to_owned());
    }
    let reference = Reference::parse(wanted)?;
    let name = reference.to_string();
    match (manifest.images.contains_key(&name), when) {
        (true, When::Missing | When::Never) => Ok(name),
        (false, When::Never) => {
            let known = manifest.images.into_keys().collect();
            Err(fireclaw_image::Error::UnknownImage { name: wanted.to_owned(), known }.into())
        }
        (false, When::Missing | When::Always) | (true, When::Always) => {
            pull(home, &reference)?;
            Ok(name)
        }
    }
}

/// Pulls an image and makes a root file system of it.
pub fn pull(home: &Home, reference: &Reference) -> Result<Image> {
    home.make_private()?;
    let runtime = runtime()?;
    let pulled = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            pulled = pulled(home, reference) => pulled,
            signal = signals.next() => Err(CliError::interrupted(signal)),
        }
    });
    // Unpacking cannot be interrupted; what it has written goes with the next command.
    runtime.shutdown_background();
    pulled
}

async fn pulled(home: &Home, reference: &Reference) -> Result<Image> {
    let store = Store::new(home.blobs());
    // Nothing of it is pruned before there is an image that needs it.
    let _hold = store.hold().await?;
    let bar = Bar::new(reference);
    let (system, architecture) = PLATFORM;
    let pulled = Registry::new(store, system, architecture).pull(reference, &bar).await?;
    drop(bar);
    let (home, name) = (home.clone(), reference.to_string());
    let added = tokio::task::spawn_blocking(move || {
        let layers = pulled.layers.into_iter().map(|blob| (blob.digest, blob.path)).collect();
        let (digest, config) = (&*pulled.digest, &*pulled.config);
        let pulled = Pulled { name: &name, digest, config, layers };
        fireclaw_image::add_pulled(&home, pulled, &Screen::new())
    });
    let lost = |e: tokio::task::JoinError| CliError::new(Kind::System, e.to_string());
    Ok(added.await.map_err(lost)??)
}

/// Removes the layers that no image needs; how many bytes that frees.
pub fn prune_layers(home: &Home) -> Result<u64> {
    Store::new(home.blobs()).prune(|| {
        let images = Manifest::read(home)?.images.into_values();
        let layers = images.filter_map(|image| image.pulled).flat_map(|origin| origin.layers);
        let used: BTreeSet<String> = layers.collect();
        Ok::<_, CliError>(move |digest: &str| used.contains(digest))
    })
}

/// Shows how a pull goes on: a bar on a terminal, else a line at its start.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(reference: &Reference) -> Self {
        if !std::io::stderr().is_terminal() {
            say!("fireclaw: pulling {reference}");
            return Self(None);
        }
        let bar = ProgressBar::new(0);
        let style = "pulling {prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(reference.to_string());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }
}

impl Watch for Bar {
    fn progress(&self, bytes: u64, of: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(of);
            bar.set_position(bytes);
        }
    }

    fn waits(&self) {
        say!("fireclaw: another pull fetches a part of it; waiting for that");
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl From<fireclaw_registry::Error> for CliError {
    fn from(error: fireclaw_registry::Error) -> Self {
        use fireclaw_registry::Error;
        let message = error.to_string();
        match error {
            Error::BadReference { .. } => Self::new(Kind::Usage, message).hint(
                "give NAME, NAME:TAG or REGISTRY/NAME:TAG; `fireclaw image ls` lists local images",
            ),
            Error::NotFound { .. } => Self::new(Kind::Usage, message)
                .hint("check the name and tag; `fireclaw image ls` lists local images"),
            Error::Denied { registry, .. } => Self::new(Kind::Usage, message)
                .hint(format!("check the name; for a private image: docker login {registry}")),
            Error::Credentials { .. } => Self::new(Kind::Host, message)
                .hint("check ~/.docker/config.json and its credential helper"),
            Error::Platform { .. } | Error::NotAnImage { .. } => Self::new(Kind::Usage, message),
            Error::WrongBytes { .. } => Self::new(Kind::System, message)
                .hint("nothing of it was kept; pull again, or ask who runs the registry"),
            Error::Registry { .. } => Self::new(Kind::System, message)
                .hint("is the network up? what was fetched is kept: pull again to continue. `fireclaw image ls` lists local images"),
            Error::File(error) => PathError::into(error),
            _ => Self::new(Kind::System, message),
        }
    }
}
