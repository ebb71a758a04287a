//! What Firecracker's published API description says of the requests that
//! Fireclaw makes, in our own form.
//!
//! Read from `src/firecracker/swagger/firecracker.yaml` at the version below.

/// The version of the description.
pub const VERSION: &str = "1.17.0-dev";

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    Flag,
    /// An integer with its least and greatest value, if told.
    Integer(Option<i64>, Option<i64>),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Another definition; not in this table if we never send it.
    Object(&'static str),
    List(&'static str),
}
use Kind::{Choice, Flag, Integer, List, Object, Text};

/// A field's name and type, and whether it is required.
pub type Field = (&'static str, Kind, bool);

const REQUIRED: bool = true;
const OPTIONAL: bool = false;

/// Method, path and the definition of the body.
pub const REQUESTS: &[(&str, &str, &str)] = &[
    ("put", "/logger", "Logger"),
    ("put", "/machine-config", "MachineConfiguration"),
    ("put", "/boot-source", "BootSource"),
    ("put", "/drives/{drive_id}", "Drive"),
    ("put", "/network-interfaces/{iface_id}", "NetworkInterface"),
    ("put", "/entropy", "EntropyDevice"),
    ("put", "/vsock", "Vsock"),
    ("put", "/actions", "InstanceActionInfo"),
    ("patch", "/vm", "Vm"),
    ("put", "/snapshot/create", "SnapshotCreateParams"),
    ("put", "/snapshot/load", "SnapshotLoadParams"),
];

/// Each definition with all of its fields.
pub const DEFINITIONS: &[(&str, &[Field])] = &[
    (
        "BootSource",
        &[
            ("kernel_image_path", Text, REQUIRED),
            ("initrd_path", Text, OPTIONAL),
            ("boot_args", Text, OPTIONAL),
        ],
    ),
    (
        "Drive",
        &[
            ("drive_id", Text, REQUIRED),
            ("is_root_device", Flag, REQUIRED),
            ("is_read_only", Flag, OPTIONAL),
            ("path_on_host", Text, OPTIONAL),
            ("partuuid", Text, OPTIONAL),
            ("cache_type", Choice(&["Unsafe", "Writeback"]), OPTIONAL),
            ("io_engine", Choice(&["Sync", "Async"]), OPTIONAL),
            ("rate_limiter", Object("RateLimiter"), OPTIONAL),
            ("socket", Text, OPTIONAL),
        ],
    ),
    ("EntropyDevice", &[("rate_limiter", Object("RateLimiter"), OPTIONAL)]),
    (
        "InstanceActionInfo",
        &[("action_type", Choice(&["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]), REQUIRED)],
    ),
    (
        "Logger",
        &[
            ("log_path", Text, OPTIONAL),
            ("level", Choice(&["Error", "Warning", "Info", "Debug", "Trace", "Off"]), OPTIONAL),
            ("show_level", Flag, OPTIONAL),
            ("show_log_origin", Flag, OPTIONAL),
            ("module", Text, OPTIONAL),
        ],
    ),
    (
        "MachineConfiguration",
        &[
            ("vcpu_count", Integer(Some(1), Some(32)), REQUIRED),
            ("mem_size_mib", Integer(None, None), REQUIRED),
            ("smt", Flag, OPTIONAL),
            ("track_dirty_pages", Flag, OPTIONAL),
            ("cpu_template", Object("CpuTemplate"), OPTIONAL),
            ("huge_pages", Choice(&["None", "Transparent", "2M"]), OPTIONAL),
        ],
    ),
    (
        "MemoryBackend",
        &[("backend_type", Choice(&["File", "Uffd"]), REQUIRED), ("backend_path", Text, REQUIRED)],
    ),
    (
        "NetworkInterface",
        &[
            ("host_dev_name", Text, REQUIRED),
            ("iface_id", Text, REQUIRED),
            ("guest_mac", Text, OPTIONAL),
            ("mtu", Integer(Some(68), Some(65535)), OPTIONAL),
            ("rx_rate_limiter", Object("RateLimiter"), OPTIONAL),
            ("tx_rate_limiter", Object("RateLimiter"), OPTIONAL),
        ],
    ),
    ("NetworkOverride", &[("iface_id", Text, REQUIRED), ("host_dev_name", Text, REQUIRED)]),
    (
        "SnapshotCreateParams",
        &[
            ("snapshot_path", Text, REQUIRED),
            ("mem_file_path", Text, REQUIRED),
            ("snapshot_type", Choice(&["Full", "Diff"]), OPTIONAL),
        ],
    ),
    (
        "SnapshotLoadParams",
        &[
            ("snapshot_path", Text, REQUIRED),
            ("mem_backend", Object("MemoryBackend"), OPTIONAL),
            ("mem_file_path", Text, OPTIONAL),
            ("resume_vm", Flag, OPTIONAL),
            ("track_dirty_pages", Flag, OPTIONAL),
            ("enable_diff_snapshots", Flag, OPTIONAL),
            ("network_overrides", List("NetworkOverride"), OPTIONAL),
            ("vsock_override", Object("VsockOverride"), OPTIONAL),
            ("clock_realtime", Flag, OPTIONAL),
            ("huge_pages", Choice(&["Snapshot", "None", "Transparent", "2M"]), OPTIONAL),
        ],
    ),
    ("Vm", &[("state", Choice(&["Paused", "Resumed"]), REQUIRED)]),
    (
        "Vsock",
        &[
            ("guest_cid", Integer(Some(3), None), REQUIRED),
            ("uds_path", Text, REQUIRED),
            ("vsock_id", Text, OPTIONAL),
        ],
    ),
    ("VsockOverride", &[("uds_path", Text, REQUIRED)]),
];

/// The fields of a definition.
pub fn definition(name: &str) -> Option<&'static [Field]> {
    DEFINITIONS.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields)
}
