//! An image from a registry.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::RegistryOperation;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use tokio::sync::RwLock;

use crate::store::Fetch;
use crate::{Blob, Error, Reference, Result, Store, credentials};

/// The longest configuration that is fetched.
const MAX_CONFIG: u64 = 4 << 20;

/// The most layers of an image. Docker writes 127 at most.
const MAX_LAYERS: usize = 512;

/// The longest layer that is fetched, compressed.
const MAX_LAYER: u64 = 64 << 30;

/// How many layers are fetched at once.
const AT_ONCE: usize = 3;

/// How often a blob is asked for in a row without a single byte of it.
const MOST_TRIES: u32 = 4;

/// How long the registry may take to let us connect, and to send anything.
const CONNECT: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);

/// The wait before a blob is asked for again; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// An image whose blobs are all in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The digest of its manifest.
    pub digest: String,
    /// Its configuration, as the registry has it.
    pub config: Vec<u8>,
    /// Its layers, from the lowest up.
    pub layers: Vec<Blob>,
}

/// Hears how a pull goes on.
pub trait Watch: Sync {
    /// Of so many bytes so many are there.
    fn progress(&self, bytes: u64, of: u64);

    /// Somebody else fetches a part of it already.
    fn waits(&self);
}

/// What images are pulled with.
pub struct Registry {
    store: Store,
    platform: (String, String),
}

impl Registry {
    /// Into this store, images for this system and architecture in Go's words, such as
    /// `linux` and `amd64`.
    pub fn new(store: Store, system: &str, architecture: &str) -> Self {
        Self { store, platform: (system.to_owned(), architecture.to_owned()) }
    }

    /// Pulls an image: what is not in the store yet. A blob that breaks off is gone on with.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::BadReference`].
    pub async fn pull(&self, reference: &Reference, watch: &dyn Watch) -> Result<Pulled> {
        // May have been done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (client, auth) = self.connect(reference).await?;
        let (manifest, digest) = client
            .pull_image_manifest(reference.of_client(), &auth)
            .await
            .map_err(|e| self.failed(reference, e))?;
        self.check(reference, &manifest)?;
        let pull = Pull { registry: self, client: RwLock::new(client), reference };
        let config = pull.blob(&manifest.config, MAX_CONFIG, &|_| (), || ()).await?;
        let config = std::fs::read(&config.path)
            .map_err(fireclaw_host::PathError::at("read", &config.path))?;
        Ok(Pulled { digest, config, layers: pull.layers(&manifest.layers, watch).await? })
    }

    /// A client that may pull an image, with what it shows for that.
    ///
    /// The token is got here and then shown as it is: the library would get one by itself, and
    /// ends the process over one that cannot stand in a header.
    async fn connect(&self, reference: &Reference) -> Result<(Client, RegistryAuth)> {
        let image = reference.of_client();
        let (client, auth) = (self.client(reference)?, credentials::of(reference).await?);
        let asked = client.auth(image, &auth, RegistryOperation::Pull).await;
        let token = match asked.map_err(|e| failed(reference, &e))? {
            // The client has a name and a password to show.
            None if matches!(auth, RegistryAuth::Basic(..)) => return Ok((client, auth)),
            // Nobody asks; whoever does later gets what opens nothing.
            None => "anonymous".to_owned(),
            Some(token) => token,
        };
        if token.is_empty() || token.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(trouble(reference, "its token cannot stand in a header"));
        }
        let (client, auth) = (self.client(reference)?, RegistryAuth::Bearer(token));
        client.store_auth_if_needed(image.resolve_registry(), &auth).await;
        Ok((client, auth))
    }

    fn client(&self, reference: &Reference) -> Result<Client> {
        let (system, architecture) = self.platform.clone();
        let fits = move |entry: &&ImageIndexEntry| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os.to_string() == system
                    && platform.architecture.to_string() == architecture
            })
        };
        let mut config = ClientConfig {
            protocol: ClientProtocol::Https,
            platform_resolver: Some(Box::new(move |entries| {
                entries.iter().find(&fits).map(|entry| entry.digest.clone())
            })),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("fireclaw/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        if reference.is_loopback() {
            config.protocol = ClientProtocol::HttpsExcept(vec![reference.registry().to_owned()]);
            // What is said in the clear goes through nobody: these stand before the
            // environment's proxies, and nothing goes through them.
            config.http_proxy = Some("http://127.0.0.1:9".into());
            config.no_proxy = Some("*,127.0.0.0/8,::1".into());
        }
        Client::try_from(config).map_err(|e| failed(reference, &e))
    }

    /// Whether a manifest is one of an image in layers that can be fetched.
    fn check(&self, reference: &Reference, manifest: &OciImageManifest) -> Result<()> {
        let not = |problem: String| Error::NotAnImage { reference: reference.to_string(), problem };
        if !manifest.config.media_type.contains("image.config")
            && !manifest.config.media_type.contains("container.image.v1")
        {
            let kind = fireclaw_host::escape(&manifest.config.media_type);
            return Err(not(format!("its configuration is of type {kind}")));
        }
        if manifest.layers.is_empty() || manifest.layers.len() > MAX_LAYERS {
            let layers = manifest.layers.len();
            return Err(not(format!("it has {layers} layers; 1 to {MAX_LAYERS} are read")));
        }
        if let Some(odd) = manifest.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            let kind = fireclaw_host::escape(&odd.media_type);
            return Err(not(format!("it has a layer of type {kind}")));
        }
        Ok(())
    }

    fn failed(&self, reference: &Reference, error: OciDistributionError) -> Error {
        match &error {
            OciDistributionError::ImageManifestNotFoundError(_) => {
                let (system, architecture) = &self.platform;
                Error::Platform {
                    reference: reference.to_string(),
                    platform: format!("{system}/{architecture}"),
                }
            }
            _ => failed(reference, &error),
        }
    }
}

/// Layers as they are distributed: tar, alone or compressed with gzip or zstd.
fn is_layer(media_type: &str) -> bool {
    let is_known = |kind: &str| {
        kind == "application/vnd.docker.image.rootfs.diff.tar.gzip"
            || kind == "application/vnd.docker.image.rootfs.diff.tar"
            || kind == "application/vnd.docker.image.rootfs.diff.tar.zstd"
            || kind == "application/vnd.oci.image.layer.v1.tar"
    };
    is_known(media_type)
        || ["+gzip", "+zstd"].iter().any(|end| media_type.strip_suffix(end).is_some_and(is_known))
}

/// One pull.
struct Pull<'a> {
    registry: &'a Registry,
    /// Another when its token has expired.
    client: RwLock<Client>,
    reference: &'a Reference,
}

impl Pull<'_> {
    /// All layers, in order.
    async fn layers(&self, layers: &[OciDescriptor], watch: &dyn Watch) -> Result<Vec<Blob>> {
        let total = layers.iter().map(|layer| u64::try_from(layer.size).unwrap_or(0)).sum();
        let done = AtomicI64::new(0);
        let more = |bytes: i64| {
            let now = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            watch.progress(u64::try_from(now).unwrap_or(0), total);
        };
        let layers =
            layers.iter().map(|layer| self.blob(layer, MAX_LAYER, &more, || watch.waits()));
        stream::iter(layers).buffered(AT_ONCE).try_collect().await
    }

    /// A blob of at most so many bytes, fetched if it is not there. `more` hears how many
    /// bytes came.
    async fn blob(
        &self,
        of: &OciDescriptor,
        most: u64,
        more: &(dyn Fn(i64) + Sync),
        waits: impl FnOnce(),
    ) -> Result<Blob> {
        let bytes =
            u64::try_from(of.size).ok().filter(|bytes| *bytes <= most).ok_or_else(|| {
                let problem = format!("a part of it has {} bytes, and may have {most}", of.size);
                Error::NotAnImage { reference: self.reference.to_string(), problem }
            })?;
        let registry = self.reference.registry();
        let store = &self.registry.store;
        let mut fetch = match store.fetch(&of.digest, bytes, registry, waits).await? {
            Ok(there) => {
                more(signed(bytes));
                return Ok(there);
            }
            Err(fetch) => fetch,
        };
        if fetch.bytes > fetch.expected() {
            fetch.reset()?;
        }
        more(signed(fetch.bytes));
        // What an earlier pull has left may be wrong.
        let mut is_resumed = fetch.bytes > 0;
        let (mut tries, mut wait, mut had_token) = (0, FIRST_WAIT, false);
        loop {
            let before = fetch.bytes;
            match self.stream(of, &mut fetch, more).await {
                Ok(()) if fetch.is_right() || !is_resumed => break,
                Ok(()) => {
                    more(-signed(fetch.bytes));
                    fetch.reset()?;
                    is_resumed = false;
                }
                // Maybe for another token.
                Err(Broken::For(Error::Denied { .. })) if !had_token => {
                    had_token = true;
                    *self.client.write().await = self.registry.connect(self.reference).await?.0;
                }
                Err(Broken::For(_)) if is_resumed => {
                    more(-signed(fetch.bytes));
                    fetch.reset()?;
                    is_resumed = false;
                }
                Err(Broken::For(error)) => {
                    if matches!(error, Error::WrongBytes { .. }) {
                        fetch.discard();
                    }
                    return Err(error);
                }
                Err(Broken::Off(error)) => {
                    // As long as something comes it is gone on with.
                    if fetch.bytes > before {
                        (tries, wait, had_token) = (0, FIRST_WAIT, false);
                    }
                    tries += 1;
                    if tries >= MOST_TRIES {
                        return Err(error);
                    }
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
            }
        }
        fetch.finish()?.map_err(|problem| self.wrong(&of.digest, problem))
    }

    /// Fetches what of a blob is not there yet.
    async fn stream(
        &self,
        of: &OciDescriptor,
        fetch: &mut Fetch,
        more: &(dyn Fn(i64) + Sync),
    ) -> std::result::Result<(), Broken> {
        if fetch.bytes == fetch.expected() {
            return Ok(());
        }
        let image = self.reference.of_client();
        // From the registry, and from nowhere else that the manifest names.
        let of_registry = &OciDescriptor { urls: None, ..of.clone() };
        let client = self.client.read().await;
        let asked = client.pull_blob_stream_partial(image, of_registry, fetch.bytes, None).await;
        drop(client);
        let mut stream = match asked.map_err(|e| self.broken(&e))? {
            BlobResponse::Partial(stream) => stream,
            BlobResponse::Full(stream) => {
                // The registry begins at the beginning, and so do we.
                more(-signed(fetch.bytes));
                fetch.reset().map_err(Broken::For)?;
                stream
            }
        };
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|e| Broken::Off(trouble(self.reference, &e.to_string())))?;
            if !fetch.write(&bytes).map_err(Broken::For)? {
                let problem = format!("more than {} bytes", fetch.expected());
                return Err(Broken::For(self.wrong(&of.digest, problem)));
            }
            more(signed(bytes.len() as u64));
        }
        match fetch.bytes == fetch.expected() {
            true => Ok(()),
            false => Err(Broken::Off(trouble(self.reference, "the connection ended early"))),
        }
    }

    fn broken(&self, error: &OciDistributionError) -> Broken {
        let told = failed(self.reference, error);
        match error {
            OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
                Broken::Off(told)
            }
            OciDistributionError::ServerError { code, .. } if *code >= 500 || *code == 429 => {
                Broken::Off(told)
            }
            _ => Broken::For(told),
        }
    }

    fn wrong(&self, digest: &str, problem: String) -> Error {
        let registry = self.reference.registry().to_owned();
        Error::WrongBytes { registry, digest: fireclaw_host::escape(digest), problem }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// How a stream ended before its end.
enum Broken {
    /// It may be gone on with.
    Off(Error),
    /// It may not.
    For(Error),
}

/// A registry that does not answer, or not as a registry does.
fn trouble(reference: &Reference, problem: &str) -> Error {
    let registry = reference.registry().to_owned();
    Error::Registry { registry, problem: fireclaw_host::escape(problem) }
}

/// What an error of the library means to people.
fn failed(reference: &Reference, error: &OciDistributionError) -> Error {
    let registry = reference.registry().to_owned();
    let codes = |envelope: &oci_client::errors::OciEnvelope, wanted: &[OciErrorCode]| {
        envelope.errors.iter().any(|e| wanted.contains(&e.code))
    };
    let denied = || Error::Denied { registry: registry.clone(), reference: reference.to_string() };
    let not_found =
        || Error::NotFound { registry: registry.clone(), reference: reference.to_string() };
    match error {
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::ServerError { code: 401 | 403, .. } => denied(),
        OciDistributionError::ServerError { code: 404, .. } => not_found(),
        OciDistributionError::RegistryError { envelope, .. }
            if codes(envelope, &[OciErrorCode::Unauthorized, OciErrorCode::Denied]) =>
        {
            denied()
        }
        OciDistributionError::RegistryError { envelope, .. }
            if codes(
                envelope,
                &[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound],
            ) =>
        {
            not_found()
        }
        OciDistributionError::DigestError(problem) => Error::WrongBytes {
            digest: reference.to_string(),
            problem: fireclaw_host::escape(&problem.to_string()),
            registry,
        },
        other => trouble(reference, &root_cause(other)),
    }
}

/// The last of an error's causes: those before it repeat addresses.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
