//! What can go wrong with a registry.

use fireclaw_host::PathError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be an image's name.
    #[error("{name:?} is not an image name: {problem}")]
    BadReference {
        /// What it is, escaped.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The registry has no such image or tag.
    #[error("{registry} has no image {reference}")]
    NotFound {
        /// The registry.
        registry: String,
        /// The image.
        reference: String,
    },
    /// The registry wants to know who asks, or does not give this image to them. Many say so
    /// of what they do not have.
    #[error("{registry} denies access to {reference}: no such image, or it is private")]
    Denied {
        /// The registry.
        registry: String,
        /// The image.
        reference: String,
    },
    /// The credentials for the registry cannot be had.
    #[error("the credentials for {registry} cannot be read: {problem}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why.
        problem: String,
    },
    /// There is no image for this platform.
    #[error("{reference} has no image for {platform}")]
    Platform {
        /// The image.
        reference: String,
        /// The platform that was wanted.
        platform: String,
    },
    /// It is something else than an image in layers.
    #[error("{reference} is not a container image: {problem}")]
    NotAnImage {
        /// The image.
        reference: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What came is not what was asked for.
    #[error("{registry} sent other bytes than {digest} stands for: {problem}")]
    WrongBytes {
        /// The registry.
        registry: String,
        /// The digest that was asked for.
        digest: String,
        /// How they differ.
        problem: String,
    },
    /// The registry does not answer, or not as a registry does.
    #[error("{registry}: {problem}")]
    Registry {
        /// The registry.
        registry: String,
        /// What happened, escaped.
        problem: String,
    },
    /// A file of the store could not be used.
    #[error(transparent)]
    File(#[from] PathError),
}

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;
