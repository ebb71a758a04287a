//! Who we are to a registry: what `docker login` has left.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use fireclaw_host::PathError;
use oci_client::secrets::RegistryAuth;

use crate::{Error, Reference, Result};

/// How Docker calls its own registry in its configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The credentials for a registry in Docker's configuration (`~/.docker/config.json`, or
/// below `DOCKER_CONFIG`), or of the helper that it names; else none.
pub async fn of(reference: &Reference) -> Result<RegistryAuth> {
    let registry = reference.registry().to_owned();
    let server = match registry.as_str() {
        "docker.io" => DOCKER_HUB.to_owned(),
        _ => registry.clone(),
    };
    let Some(path) = file() else { return Ok(RegistryAuth::Anonymous) };
    let config = match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        opened => BufReader::new(opened.map_err(PathError::at("open", path))?),
    };
    // A helper is a program that is waited for.
    let found = tokio::task::spawn_blocking(move || {
        docker_credential::get_credential_from_reader(config, &server)
    });
    let failed = |problem: String| Error::Credentials {
        registry: registry.clone(),
        problem: fireclaw_host::escape(&problem),
    };
    match found.await.map_err(|e| failed(e.to_string()))? {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            Err(failed("it is an identity token, which is not supported".into()))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        // A helper that knows nobody says so like this.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        Err(e) => Err(failed(e.to_string())),
    }
}

/// Docker's configuration.
fn file() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty());
    let folder = named.map(PathBuf::from);
    let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".docker")))?;
    Some(folder.join("config.json"))
}
