//! What host and guest agree on before they speak: names on the kernel's command line, and
//! where the stream is.

/// Begins the word on the kernel's command line that says what carries the stream.
pub const STREAM: &str = "fireclaw.stream=";

/// After [`STREAM`]: a port of virtio-serial, see [`PORT_NAME`].
pub const SERIAL: &str = "serial";

/// After [`STREAM`]: vsock, see [`VSOCK_PORT`].
pub const VSOCK: &str = "vsock";

/// The name of the virtio-serial port that carries the stream.
pub const PORT_NAME: &str = "fireclaw.0";

/// The vsock port of the host (CID 2) to which the guest connects.
pub const VSOCK_PORT: u32 = 5005;

/// The word on the kernel's command line by which a guest knows that it has a network
/// interface.
pub const INTERFACE: &str = "fireclaw.interface";
