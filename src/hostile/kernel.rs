//! Probes of the kernel's surface: one system call each that a tool has no business with.
//!
//! Neighbours: `hostile::tools` lists them, `sys::attack` makes the calls. Never: leaves what a call made.

use super::report::{Call, Probed, Refusal};
use crate::sys::{Result, attack, observe, surface};

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

/// Makes one call of a list, by its name.
pub(super) fn call_kernel(call: &mut Call<'_>) -> Probed {
    let name = call.text("name")?;
    let end = surface::reach(name).ok_or(Refusal("name"))?;
    Ok(call.tried_in_child(name, "", "allowed", end))
}

/// Makes a user namespace by the call whose flags no filter sees.
pub(super) fn clone_user(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("clone3", "CLONE_NEWUSER", "allowed", surface::clone_user_namespace()))
}

/// Joins a namespace.
pub(super) fn join_namespace(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("setns", "CLONE_NEWUTS", "allowed", surface::join_namespace()))
}

/// Mounts in namespaces of its own, where it would be root.
pub(super) fn mount_in_own_namespace(call: &mut Call<'_>) -> Probed {
    let end = surface::mount_in_own_namespace();
    Ok(call.tried_in_child("unshare", "CLONE_NEWUSER CLONE_NEWNS", "mounted", end))
}

/// Answers the system calls of others.
pub(super) fn install_listener(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("seccomp", "listener", "installed", surface::install_listener()))
}

/// Pastes into a console as if the person did.
pub(super) fn paste_into_console(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("ioctl", "TIOCLINUX", "allowed", surface::paste_into_console()))
}
