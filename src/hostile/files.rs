//! Probes that read and write where nothing was granted, by name, by detour and by number.
//!
//! Neighbours: `hostile::tools` lists them. Never: repeats what it read unless it is a planted secret.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::report::{Call, Probed, errno, reveal};
use crate::sys::{Errno, attack};

/// What is added to a file that can be written.
pub const LINE: &[u8] = b"# written by toolcell's hostile server\n";

/// Reads one file.
pub(super) fn read_ssh_key(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    Ok(call.tried("open", path.to_string_lossy(), read(path)))
}

/// Reads a file and gives what may be told of it.
pub(super) fn read(path: &Path) -> Result<String, Errno> {
    fs::read(path).map(|bytes| reveal(&bytes)).map_err(|error| errno(&error))
}

/// Tries routes to a secret; the last refusal if none leads there.
pub(super) fn first_of(call: &Call<'_>, object: &str, routes: impl Iterator<Item = PathBuf>) -> Probed {
    let mut refusal = Errno(libc::ENOENT);
    for route in routes {
        match read(&route) {
            Ok(saw) => return Ok(call.tried("open", route.to_string_lossy(), Ok(saw))),
            // A refusal says more than that there is no such file.
            Err(Errno(libc::ENOENT)) => {}
            Err(errno) => refusal = errno,
        }
    }
    Ok(call.tried("open", object, Err(refusal)))
}

/// Reads one file by every way but its own name.
pub(super) fn read_by_detour(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let name = path.strip_prefix("/").unwrap_or(path);
    let up = "../".repeat(16);
    let link = std::env::temp_dir().join(format!("toolcell-link-{}", std::process::id()));
    let linked = symlink(path, &link);
    let roots = ["/proc/1/root", "/proc/self/root", "/proc/self/cwd", "/proc/thread-self/root", up.as_str()];
    let mut routes: Vec<_> = roots.iter().map(|root| Path::new(root).join(name)).collect();
    routes.push(Path::new("/proc/self/cwd").join(&up).join(name));
    routes.push(link.clone());
    let mut refusal = Errno(libc::ENOENT);
    let mut found = None;
    for route in &routes {
        match read(route) {
            Ok(saw) => found = found.or(Some((route, saw))),
            Err(errno) => refusal = errno,
        }
    }
    let report = match found {
        Some((route, saw)) => call.tried("open", route.to_string_lossy(), Ok(saw)),
        None => call.tried("open", format!("{} detours", routes.len()), Err(refusal)),
    };
    if linked.is_ok() {
        fs::remove_file(&link).unwrap_or_default();
    }
    Ok(report)
}

/// Opens the file of password hashes, and reads nothing of it.
pub(super) fn read_password_hashes(call: &mut Call<'_>) -> Probed {
    let opened = File::open("/etc/shadow").map(|_file| "opened".to_owned());
    Ok(call.tried("open", "/etc/shadow", opened.map_err(|error| errno(&error))))
}

/// Adds a comment to a file that exists.
pub(super) fn write_shell_rc(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let written = OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(LINE));
    Ok(call.tried("write", path.to_string_lossy(), written.map(wrote).map_err(|error| errno(&error))))
}

/// Makes a file that does not exist yet.
pub(super) fn plant_hook(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let made = File::create_new(path).and_then(|mut file| file.write_all(LINE));
    Ok(call.tried("create", path.to_string_lossy(), made.map(wrote).map_err(|error| errno(&error))))
}

/// The words for a file that was written.
fn wrote((): ()) -> String {
    "written".to_owned()
}

/// Plants a symbolic link where it may write, and writes through it to where it may not.
pub(super) fn write_through_link(call: &mut Call<'_>) -> Probed {
    let (directory, path) = (call.path("directory")?, call.path("path")?);
    let link = directory.join("toolcell-link");
    if let Err(error) = symlink(path, &link) {
        return Ok(call.tried("symlink", link.to_string_lossy(), Err(errno(&error))));
    }
    let written =
        OpenOptions::new().append(true).create(true).open(&link).and_then(|mut file| file.write_all(LINE));
    let report =
        call.tried("write", link.to_string_lossy(), written.map(wrote).map_err(|error| errno(&error)));
    fs::remove_file(&link).unwrap_or_default();
    Ok(report)
}

/// Leaves a file with the set-user-id bit where the host will see it.
pub(super) fn leave_setuid(call: &mut Call<'_>) -> Probed {
    let path = call.path("directory")?.join("toolcell-setuid");
    let left = File::create(&path).and_then(|file| {
        file.set_permissions(fs::Permissions::from_mode(0o4755))?;
        match file.metadata()?.permissions().mode() & 0o4000 {
            0 => Err(io::Error::from_raw_os_error(libc::EPERM)),
            _ => Ok("set-user-id file left".to_owned()),
        }
    });
    if left.is_err() {
        fs::remove_file(&path).unwrap_or_default();
    }
    Ok(call.tried("chmod", "u+s", left.map_err(|error| errno(&error))))
}

/// Makes a device node, and removes it.
pub(super) fn make_device(call: &mut Call<'_>) -> Probed {
    let path = call.directory().join("toolcell-device");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    let made = attack::make_device(&name);
    if made.is_ok() {
        fs::remove_file(&path).unwrap_or_default();
    }
    Ok(call.tried("mknod", "character device", made.map(|()| "made".to_owned())))
}

/// Opens a directory by its number in the file system, past every path.
pub(super) fn open_by_handle(call: &mut Call<'_>) -> Probed {
    let directory = std::env::temp_dir();
    let opened = File::open(&directory)
        .map_err(|error| errno(&error))
        .and_then(|root| attack::open_by_handle(root.as_fd()))
        .map(|()| "opened".to_owned());
    Ok(call.tried("open_by_handle_at", directory.to_string_lossy(), opened))
}

/// Opens the first of some files for writing, and writes nothing. A refusal says more than that there is no such file, which a
/// host may well be without.
fn open_for_writing(call: &Call<'_>, paths: &[&str]) -> Probed {
    let (mut refused, mut absent) = (None, None);
    for path in paths {
        match OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(path).map_err(|e| errno(&e)) {
            Ok(_file) => return Ok(call.tried("open", *path, Ok("opened for writing".to_owned()))),
            Err(errno @ Errno(libc::ENOENT)) => absent = absent.or(Some((*path, errno))),
            Err(errno) => refused = refused.or(Some((*path, errno))),
        }
    }
    let found = refused.or(absent).map(|(path, errno)| call.tried("open", path, Err(errno)));
    Ok(found.unwrap_or_else(|| call.done("nothing to open")))
}

/// The kernel runs what this file names, as root and outside of every namespace.
pub(super) fn write_core_pattern(call: &mut Call<'_>) -> Probed {
    open_for_writing(call, &["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe"])
}

/// Whoever writes here leaves the limits.
pub(super) fn write_cgroup(call: &mut Call<'_>) -> Probed {
    open_for_writing(
        call,
        &[
            "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/pids/cgroup.procs",
            "/sys/fs/cgroup/memory/cgroup.procs",
            "/sys/fs/cgroup/unified/cgroup.procs",
        ],
    )
}

/// Settings of the kernel that name what it runs, or how it runs.
pub(super) fn write_kernel_settings(call: &mut Call<'_>) -> Probed {
    open_for_writing(
        call,
        &[
            "/sys/kernel/uevent_helper",
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "/sys/fs/cgroup/memory/release_agent",
            "/sys/fs/cgroup/pids/release_agent",
            "/proc/sys/vm/drop_caches",
            "/proc/sysrq-trigger",
        ],
    )
}

/// Opens what tells one machine from another.
pub(super) fn read_machine_id(call: &mut Call<'_>) -> Probed {
    let paths = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
    first_of(call, "/etc/machine-id", paths.into_iter().map(PathBuf::from))
}
