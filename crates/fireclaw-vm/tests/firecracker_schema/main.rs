//! Every request that Fireclaw makes fits Firecracker's published description.

// Helpers of tests, which the tests' own exemption does not reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod published;
mod table;

use std::path::{Path, PathBuf};

use fireclaw_vm::firecracker::types::{
    BackendType, LogLevel, Logger, MemoryBackend, NetworkOverride, Request, SnapshotCreateParams,
    SnapshotLoadParams, SnapshotType, Vm, VmState, VsockOverride,
};
use fireclaw_vm::firecracker::{boot_requests, restore_requests};
use fireclaw_vm::{Disk, MachineSpec};
use serde_json::{Value, json};
use table::{Field, Kind};

/// All kinds of requests, with every field and every choice at least once.
fn all_requests() -> Vec<Request> {
    let spec = MachineSpec {
        kernel: "/k/vmlinux".into(),
        initramfs: "/k/initramfs".into(),
        cpus: MachineSpec::MAX_CPUS,
        memory_mib: 512,
        disks: vec![
            Disk { path: "/d/base.img".into(), read_only: true },
            Disk { path: "/d/overlay.img".into(), read_only: false },
        ],
        interface: true,
        kernel_args: vec!["fireclaw.test=1".into()],
    };
    let mut all = boot_requests(&spec, Path::new("/proc/self/fd/2"), Some("tap0"), true);
    all.extend(restore_requests(Path::new("/s"), Path::new("log"), Some("tap1")));
    all.extend(
        [LogLevel::Error, LogLevel::Warning, LogLevel::Info]
            .map(|level| Request::Logger(Logger { log_path: "log".into(), level })),
    );
    all.extend([VmState::Paused, VmState::Resumed].map(|state| Request::Vm(Vm { state })));
    all.extend([SnapshotType::Full, SnapshotType::Diff].map(|snapshot_type| {
        Request::SnapshotCreate(SnapshotCreateParams {
            snapshot_type,
            snapshot_path: "state".into(),
            mem_file_path: "memory".into(),
        })
    }));
    let load = |backend_type, network_overrides, vsock_override| {
        Request::SnapshotLoad(SnapshotLoadParams {
            snapshot_path: "state".into(),
            mem_backend: MemoryBackend { backend_type, backend_path: "memory".into() },
            resume_vm: true,
            network_overrides,
            vsock_override,
        })
    };
    all.push(load(BackendType::File, Vec::new(), None));
    all.push(load(
        BackendType::Uffd,
        vec![NetworkOverride { iface_id: "eth0".into(), host_dev_name: "tap7".into() }],
        Some(VsockOverride { uds_path: "other.sock".into() }),
    ));
    all
}

/// What is wrong with `value` as the definition `name`.
fn problems(value: &Value, name: &str) -> Vec<String> {
    let Some(fields) = table::definition(name) else {
        return vec![format!("{name} is not transcribed")];
    };
    let Value::Object(object) = value else {
        return vec![format!("{name}: {value} is not an object")];
    };
    let unknown = object
        .keys()
        .filter(|key| fields.iter().all(|(known, ..)| known != key))
        .map(|key| format!("{name}.{key} is unknown"));
    let missing = fields
        .iter()
        .filter(|(field, _, required)| *required && !object.contains_key(*field))
        .map(|(field, ..)| format!("{name}.{field} is missing"));
    let wrong = fields.iter().flat_map(|field: &Field| match object.get(field.0) {
        Some(value) => field_problems(value, field.1, &format!("{name}.{}", field.0)),
        None => Vec::new(),
    });
    unknown.chain(missing).chain(wrong).collect()
}

fn field_problems(value: &Value, kind: Kind, place: &str) -> Vec<String> {
    let fits = match kind {
        Kind::Object(name) => return problems(value, name),
        Kind::List(name) => match value {
            Value::Array(items) => {
                return items.iter().flat_map(|item| problems(item, name)).collect();
            }
            _ => false,
        },
        Kind::Text => value.is_string(),
        Kind::Flag => value.is_boolean(),
        Kind::Integer(least, most) => value
            .as_i64()
            .is_some_and(|n| n >= least.unwrap_or(i64::MIN) && n <= most.unwrap_or(i64::MAX)),
        Kind::Choice(words) => value.as_str().is_some_and(|word| words.contains(&word)),
    };
    if fits { Vec::new() } else { vec![format!("{place}: {value} is not {kind:?}")] }
}

/// The definition of a request's body by its method and path.
fn body_of(request: &Request) -> Option<&'static str> {
    let (method, path) = (request.method().as_str().to_lowercase(), request.path());
    table::REQUESTS
        .iter()
        .find(|(m, p, _)| {
            *m == method
                && match p.split_once('{') {
                    Some((stem, _)) => path
                        .strip_prefix(stem)
                        .is_some_and(|id| !id.is_empty() && !id.contains('/')),
                    None => *p == path,
                }
        })
        .map(|(.., definition)| *definition)
}

#[test]
fn every_request_fits_the_published_description() {
    let all = all_requests();
    for request in &all {
        let body = body_of(request).unwrap_or_else(|| panic!("{request:?} goes nowhere"));
        let json = serde_json::to_value(request).unwrap();
        assert_eq!(problems(&json, body), Vec::<String>::new(), "{json}");
    }
    for (method, path, body) in table::REQUESTS {
        assert!(
            all.iter().any(|request| body_of(request) == Some(body)),
            "{method} {path} is never sent"
        );
    }
}

#[test]
fn misfits_are_found() {
    for (body, json) in [
        ("Vm", json!({"state": "paused"})),
        ("Vm", json!({})),
        ("Vm", json!("Paused")),
        ("Vsock", json!({"guest_cid": 2, "uds_path": "v.sock"})),
        ("Vsock", json!({"guest_cid": 3, "uds_path": "v.sock", "port": 5})),
        ("MachineConfiguration", json!({"vcpu_count": 33, "mem_size_mib": 1})),
        ("MachineConfiguration", json!({"vcpu_count": 1, "mem_size_mib": "1"})),
        ("EntropyDevice", json!({"rate_limiter": {}})),
        ("SnapshotLoadParams", json!({"snapshot_path": "s", "mem_backend": {}})),
        ("SnapshotLoadParams", json!({"snapshot_path": "s", "network_overrides": [{}]})),
        ("NetworkInterface", json!({"iface_id": "eth0", "host_dev_name": 7})),
        ("NetworkInterface", json!({"iface_id": "eth0", "guest_mac": "02:fc:00:00:00:00"})),
    ] {
        assert_ne!(problems(&json, body), Vec::<String>::new(), "{body} {json}");
    }
}

#[test]
fn the_guest_gets_its_disks_in_order_and_its_kernel_arguments() {
    let drives: Vec<(String, PathBuf, bool)> = all_requests()
        .into_iter()
        .filter_map(|request| match request {
            Request::Drive(d) => Some((d.drive_id, d.path_on_host, d.is_read_only)),
            _ => None,
        })
        .collect();
    assert_eq!(
        drives,
        [
            ("disk0".to_owned(), "/d/base.img".into(), true),
            ("disk1".to_owned(), "/d/overlay.img".into(), false),
        ]
    );
    let boot = all_requests().into_iter().find_map(|request| match request {
        Request::BootSource(boot) => Some(boot),
        _ => None,
    });
    let args = boot.unwrap().boot_args;
    let words: Vec<&str> = args.split(' ').collect();
    for word in ["console=ttyS0", "reboot=k", "panic=-1", "fireclaw.stream=vsock"] {
        assert!(words.contains(&word), "{word} is not in {args}");
    }
    assert_eq!(words.last(), Some(&"fireclaw.test=1"));
}

#[test]
fn a_card_is_there_only_if_there_is_a_tap_and_a_clone_has_its_own() {
    let spec = |interface| MachineSpec {
        disks: Vec::new(),
        kernel: "k".into(),
        initramfs: "i".into(),
        cpus: 1,
        memory_mib: 128,
        interface,
        kernel_args: Vec::new(),
    };
    let text = |requests: Vec<Request>| {
        let line = |r: &Request| format!("{} {}", r.path(), serde_json::to_value(r).unwrap());
        requests.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let with = text(boot_requests(&spec(true), Path::new("log"), Some("fctap0"), true));
    assert!(with.contains("/network-interfaces/eth0 {"), "{with}");
    assert!(with.contains(r#""host_dev_name":"fctap0""#) && with.contains(" fireclaw.interface"));
    let clone = text(restore_requests(Path::new("/s"), Path::new("log"), Some("fctap1")));
    assert!(clone.contains(r#"[{"host_dev_name":"fctap1","iface_id":"eth0"}]"#), "{clone}");
    let without = text(boot_requests(&spec(false), Path::new("log"), None, true))
        + &text(restore_requests(Path::new("/s"), Path::new("log"), None));
    assert!(!without.contains("network") && !without.contains("interface"), "{without}");
}
