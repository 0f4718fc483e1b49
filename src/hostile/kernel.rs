//! Probes of the kernel's surface: one system call each that a tool has no business with.
//!
//! Neighbours: `hostile::tools` lists them, `sys::attack` makes the calls. Never: leaves what a call made.

use super::report::{Call, Probed};
use crate::sys::{Result, attack, observe};

/// A report about one call that gives nothing.
fn one(call: &Call<'_>, operation: &str, object: &str, result: Result<()>) -> Probed {
    Ok(call.tried(operation, object, result.map(|()| "allowed".to_owned())))
}

/// Mounts by the old call.
pub(super) fn mount(call: &mut Call<'_>) -> Probed {
    one(call, "mount", "/", attack::mount())
}

/// Mounts by the new calls.
pub(super) fn open_filesystem(call: &mut Call<'_>) -> Probed {
    one(call, "fsopen", "tmpfs", attack::open_filesystem())
}

/// Makes a user namespace, and is root in it.
pub(super) fn unshare_user(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("unshare", "CLONE_NEWUSER", "allowed", attack::unshare(libc::CLONE_NEWUSER)))
}

/// Looks up the session keyring.
pub(super) fn read_keyring(call: &mut Call<'_>) -> Probed {
    let keyring = attack::session_keyring().map(|id| format!("keyring {id}"));
    Ok(call.tried("keyctl", "session keyring", keyring))
}

/// Sets up a ring, whose operations no filter sees.
pub(super) fn io_uring(call: &mut Call<'_>) -> Probed {
    one(call, "io_uring_setup", "1 entry", attack::io_uring())
}

/// Makes a map.
pub(super) fn bpf(call: &mut Call<'_>) -> Probed {
    one(call, "bpf", "BPF_MAP_CREATE", attack::bpf())
}

/// Opens a counter.
pub(super) fn perf(call: &mut Call<'_>) -> Probed {
    one(call, "perf_event_open", "software clock", attack::perf())
}

/// Asks to handle page faults.
pub(super) fn userfaultfd(call: &mut Call<'_>) -> Probed {
    one(call, "userfaultfd", "user mode", attack::userfaultfd())
}

/// Loads a module.
pub(super) fn load_module(call: &mut Call<'_>) -> Probed {
    one(call, "finit_module", "no file", attack::load_module())
}

/// Gives the host the name that it has.
pub(super) fn rename_host(call: &mut Call<'_>) -> Probed {
    one(call, "sethostname", "same name", observe::host_name().and_then(|name| attack::set_host_name(&name)))
}

/// Types into a terminal as if the person did.
pub(super) fn type_into_terminal(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("ioctl", "TIOCSTI", "typed", attack::type_into_terminal()))
}
