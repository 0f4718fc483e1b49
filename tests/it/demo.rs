//! Every probe of the hostile server is seen to escape when there is no cell: one that never was proves nothing.

use std::process::Command;

use serde_json::Value;

/// What a host may lack, so that the probe fails without a cell as well, and why.
const BY_HOST: &[(&str, &str)] = &[
    ("call by the x32 table", "the table is built into few kernels"),
    ("call by the 32-bit entry", "the table can be left out or switched off"),
    ("open a crypto socket", "AF_ALG is a module"),
    ("load a kernel module", "a kernel can be without modules, or locked down"),
    ("load another kernel", "kexec can be left out, or locked down"),
    ("use the machine's ports", "ioperm(2) can be left out, or locked down"),
    ("set up io_uring", "kernel.io_uring_disabled"),
    ("handle page faults", "userfaultfd(2) can be left out"),
    ("ask for quotas", "quotas can be left out"),
    ("read the metadata address", "no route leads there"),
    ("read it over IPv6", "no route leads there"),
    ("call home over IPv6", "no IPv6"),
    ("call home over MPTCP", "net.mptcp.enabled, or MPTCP is left out"),
    ("call home by sendto alone", "net.ipv4.tcp_fastopen"),
    ("call home by sendmsg alone", "net.ipv4.tcp_fastopen"),
    ("call home by sendmmsg alone", "net.ipv4.tcp_fastopen"),
    ("call home by the resolver", "nobody answers questions for names"),
    ("call home by multicast", "no membership on the loopback interface"),
    ("open a directory by handle", "the file system has no handles"),
    ("change a file's attributes", "the file system has none that are a user's"),
    ("change a file's flags", "the file system has no flags"),
    ("leave file capabilities", "the file system has no attributes"),
    ("open a socket for pings", "net.ipv4.ping_group_range is empty"),
    ("read process 1's environment", "a container's first process can be out of reach of its root"),
    ("learn the machine's id", "no systemd and no /proc/sys"),
    ("find a shared segment", "System V objects can be left out"),
    ("open a message queue", "queues can be left out"),
    ("compare what it holds", "kcmp(2) can be left out"),
    ("type into the terminal", "dev.tty.legacy_tiocsti"),
    ("answer others' system calls", "another listener stands above"),
    ("leave a core dump", "the hard limit is lower"),
];
/// What only root may do.
const BY_ROOT: &[&str] = &[
    "open the password hashes",
    "make a device node",
    "leave a device",
    "preload into every program",
    "write the core_pattern",
    "write the kernel's settings",
    "leave its cgroup",
    "become root",
    "change its own program",
    "attach to it as a debugger",
    "read its memory",
    "write its memory",
    "open its memory as a file",
    "take its open files",
    "read keys of other processes",
    "read process 1's environment",
    "open a raw socket",
    "open a socket of any family",
    "mount a file system",
    "mount by the new calls",
    "make a user namespace",
    "make one by clone3",
    "mount in its own namespace",
    "join a namespace",
    "copy a mount tree",
    "change the root",
    "change its root directory",
    "read the session keyring",
    "use bpf",
    "open a perf counter",
    "set the host name",
    "restart the machine",
    "swap to a file",
    "account processes",
    "set the clock",
    "watch whole file systems",
];

#[test]
fn every_probe_escapes_where_there_is_no_cell() {
    // Where it can be changed, which one of them tries.
    let program = std::env::temp_dir().join(format!("toolcell-bare-{}", std::process::id()));
    crate::copy_program(crate::binary().as_ref(), &program);
    let output = Command::new(&program).args(["demo", "--without-cell", "--json"]).output();
    std::fs::remove_file(&program).unwrap();
    let output = output.unwrap();
    assert!(!output.status.success());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t");
    let attacks = document["attacks"].as_array().unwrap();
    for named in BY_HOST.iter().map(|(named, _)| named).chain(BY_ROOT) {
        assert!(attacks.iter().any(|row| row["attempt"] == *named), "no attack is called `{named}`");
    }
    for row in attacks {
        let title = row["attempt"].as_str().unwrap();
        let may_fail =
            BY_HOST.iter().any(|(named, _)| *named == title) || (!is_root && BY_ROOT.contains(&title));
        if row["verdict"] != "ESCAPED" {
            assert!(may_fail && row["report"]["errno"].is_string(), "{row:#}");
        }
    }
    assert_eq!(document["left"]["processes"], serde_json::json!([]));
}
