//! Every probe of the hostile server is seen to escape when there is no cell: one that never was proves nothing.

use std::process::Command;

use serde_json::Value;

/// What a kernel may lack, so that the probe fails without a cell as well.
const BY_KERNEL: [&str; 8] = [
    "x32_call",
    "i386_call",
    "open_crypto_socket",
    "load_module",
    "io_uring",
    "userfaultfd",
    "read_metadata_address",
    "open_by_handle",
];
/// What only root may do.
const BY_ROOT: [&str; 18] = [
    "read_password_hashes",
    "make_device",
    "write_core_pattern",
    "write_cgroup",
    "become_root",
    "trace_process",
    "read_memory",
    "take_descriptor",
    "read_environments",
    "open_raw_socket",
    "mount",
    "open_filesystem",
    "unshare_user",
    "read_keyring",
    "bpf",
    "perf",
    "rename_host",
    "type_into_terminal",
];

#[test]
fn every_probe_escapes_where_there_is_no_cell() {
    let output = Command::new(crate::binary()).args(["demo", "--without-cell", "--json"]).output().unwrap();
    assert!(!output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t");
    for row in document["attacks"].as_array().unwrap() {
        let tool = row["tool"].as_str().unwrap();
        let may_fail = BY_KERNEL.contains(&tool) || (!is_root && BY_ROOT.contains(&tool));
        if row["verdict"] != "ESCAPED" {
            assert!(may_fail && row["report"]["errno"].is_string(), "{row:#}");
        }
    }
    assert_eq!(document["left"]["processes"], serde_json::json!([]));
}
