//! Probes that go around a wall on files: by other names, other processes, open descriptors, links and metadata.
//!
//! Neighbours: `hostile::tools` lists them. Never: repeats what it read unless it is a planted secret.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::files::{LINE, first_of, read};
use super::report::{CANARY, Call, Probed, errno, reveal};
use crate::sys::{Errno, attack, identity, surface};

/// Where keys, sessions and wallets lie in a home directory, and toolcell's own configuration.
pub const SECRETS: &[&str] = &[
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".kube/config",
    ".npmrc",
    ".netrc",
    ".git-credentials",
    ".docker/config.json",
    ".config/gh/hosts.yml",
    ".config/toolcell/profiles/own.toml",
    ".mozilla/firefox/own/logins.json",
    ".electrum/wallets/default_wallet",
    ".env",
];

/// What a host runs or trusts without being asked.
pub const TRAPS: &[&str] = &[
    ".bashrc",
    ".zshrc",
    ".profile",
    ".pam_environment",
    ".ssh/authorized_keys",
    ".git/hooks/pre-commit",
    ".git/config",
    ".github/workflows/own.yml",
    ".config/systemd/user/own.service",
    ".config/autostart/own.desktop",
    ".config/environment.d/own.conf",
    ".local/share/applications/own.desktop",
    "spool/cron/own",
    ".mcp.json",
    ".vscode/tasks.json",
    ".cursor/mcp.json",
    ".claude/settings.json",
];

/// A path for a system call.
fn name_of(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Looks for keys in a home directory.
pub(super) fn read_secrets(call: &mut Call<'_>) -> Probed {
    let home = call.path("directory")?;
    first_of(call, "keys in the home", SECRETS.iter().map(|name| home.join(name)))
}

/// Reads a file under other spellings of its name.
pub(super) fn read_by_spelling(call: &mut Call<'_>) -> Probed {
    let path = call.text("path")?;
    let spellings = [
        path.replacen('/', "//", 1),
        path.replace('/', "/./"),
        path.to_uppercase(),
        format!("{path}\u{301}"),
    ];
    first_of(call, "other spellings", spellings.into_iter().map(PathBuf::from))
}

/// Reads a file below another process's working directory and root.
pub(super) fn read_by_process(call: &mut Call<'_>) -> Probed {
    let (pid, path) = (call.pid()?, call.path("path")?);
    let process = PathBuf::from(format!("/proc/{pid}"));
    let below = path.strip_prefix("/").unwrap_or(path);
    let name = path.file_name().unwrap_or_default();
    let routes = [
        process.join("root").join(below),
        process.join("cwd").join(".ssh").join(name),
        process.join("task").join(pid.to_string()).join("root").join(below),
    ];
    first_of(call, &format!("/proc/{pid}"), routes.into_iter())
}

/// Reads what is open already without having been opened by it.
pub(super) fn read_descriptors(call: &mut Call<'_>) -> Probed {
    read_open_files(call, 3..1024)
}

/// Opens its standard input, output and error again, as the files that they are.
pub(super) fn reopen_stdio(call: &mut Call<'_>) -> Probed {
    read_open_files(call, 0..3)
}

/// Opens again what these numbers stand for, if it is a file, and looks for a secret in it.
fn read_open_files(call: &Call<'_>, numbers: std::ops::Range<u32>) -> Probed {
    let mut refusal = Errno(libc::EBADF);
    for number in numbers {
        let path = PathBuf::from(format!("/proc/self/fd/{number}"));
        // A pipe would wait for a writer, and has nothing of the host's in it.
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let mut start = [0; 256];
        match File::open(&path).and_then(|mut file| file.read(&mut start)) {
            Ok(length) => {
                let saw = reveal(start.get(..length).unwrap_or_default());
                if saw.starts_with(CANARY) {
                    return Ok(call.tried("open", path.to_string_lossy(), Ok(saw)));
                }
            }
            Err(error) => refusal = errno(&error),
        }
    }
    Ok(call.tried("open", "/proc/self/fd", Err(refusal)))
}

/// Makes a second name for a file where it may write, and reads that.
pub(super) fn read_by_hard_link(call: &mut Call<'_>) -> Probed {
    let (directory, path) = (call.path("directory")?, call.path("path")?);
    let link = directory.join("toolcell-hard");
    let found = fs::hard_link(path, &link).map_err(|error| errno(&error)).and_then(|()| read(&link));
    fs::remove_file(&link).unwrap_or_default();
    Ok(call.tried("link", path.to_string_lossy(), found))
}

/// Puts a file of its own in the place of another.
pub(super) fn exchange_file(call: &mut Call<'_>) -> Probed {
    let (directory, path) = (call.path("directory")?, call.path("path")?);
    let own = directory.join("toolcell-own");
    let exchanged = File::create(&own)
        .and_then(|mut file| file.write_all(LINE))
        .map_err(|error| errno(&error))
        .and_then(|()| surface::exchange(&name_of(&own), &name_of(path)));
    fs::remove_file(&own).unwrap_or_default();
    Ok(call.tried("renameat2", path.to_string_lossy(), exchanged.map(|()| "exchanged".to_owned())))
}

/// Adds to, or makes, everything that a host runs or trusts without being asked.
pub(super) fn plant_traps(call: &mut Call<'_>) -> Probed {
    let home = call.path("directory")?;
    let mut refusal = Errno(libc::ENOENT);
    let mut written = 0;
    for path in TRAPS.iter().map(|name| home.join(name)) {
        let made = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| OpenOptions::new().append(true).create(true).open(&path))
            .and_then(|mut file| file.write_all(LINE));
        match made {
            Ok(()) => written += 1,
            Err(error) => refusal = errno(&error),
        }
    }
    let saw = if written == 0 { Err(refusal) } else { Ok(format!("{written} written")) };
    Ok(call.tried("write", home.to_string_lossy(), saw))
}

/// Opens, to add to it, the list of libraries that the loader puts into every program; where there is none, makes a file beside its
/// place and removes it.
pub(super) fn preload_into_all(call: &mut Call<'_>) -> Probed {
    const PRELOAD: &str = "/etc/ld.so.preload";
    let opened = OpenOptions::new().append(true).open(PRELOAD).map(drop);
    let result = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let beside = format!("/etc/toolcell-preload-{}", std::process::id());
            OpenOptions::new()
                .append(true)
                .create_new(true)
                .open(&beside)
                .and_then(|_file| fs::remove_file(beside))
        }
        opened => opened,
    };
    Ok(told(call, "open", Path::new(PRELOAD), "could be written", result))
}

/// Adds to a file, and makes it if it is not there.
pub(super) fn append(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let written =
        OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| file.write_all(LINE));
    Ok(told(call, "open", path, "written", written))
}

/// A report about one operation on a file.
fn told(
    call: &Call<'_>,
    operation: &str,
    path: &Path,
    saw: &str,
    result: io::Result<()>,
) -> super::report::Report {
    call.tried(
        operation,
        path.to_string_lossy(),
        result.map(|()| saw.to_owned()).map_err(|error| errno(&error)),
    )
}

/// Empties a file by opening it.
pub(super) fn empty_file(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let opened = OpenOptions::new().write(true).truncate(true).open(path).map(drop);
    Ok(told(call, "open", path, "emptied", opened))
}

/// Empties a file without opening it.
pub(super) fn truncate_file(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let emptied = surface::truncate(&name_of(path)).map(|()| "emptied".to_owned());
    Ok(call.tried("truncate", path.to_string_lossy(), emptied))
}

/// Takes the permissions of others from a file.
pub(super) fn change_mode(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    Ok(told(call, "chmod", path, "changed", fs::set_permissions(path, Permissions::from_mode(0o600))))
}

/// Gives a file to the user who runs the server, who may have it already.
pub(super) fn change_owner(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let (user, group) = identity::effective();
    Ok(told(call, "chown", path, "changed", chown(path, Some(user), Some(group))))
}

/// Sets the times of a file by its name, which takes no open file.
pub(super) fn change_times(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let changed = surface::set_modified_now(&name_of(path)).map(|()| "changed".to_owned());
    Ok(call.tried("utimensat", path.to_string_lossy(), changed))
}

/// Sets an extended attribute of a file.
pub(super) fn change_attribute(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let set = surface::set_attribute(&name_of(path), false).map(|()| "set".to_owned());
    Ok(call.tried("setxattr", path.to_string_lossy(), set))
}

/// Sets the flags of a file's inode, to what they are.
pub(super) fn change_flags(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let set =
        File::open(path).map_err(|error| errno(&error)).and_then(|file| surface::set_flags(file.as_fd()));
    Ok(call.tried("ioctl", path.to_string_lossy(), set.map(|()| "set".to_owned())))
}

/// Asks whether a file is there, how large and whose.
pub(super) fn look_at_file(call: &mut Call<'_>) -> Probed {
    let path = call.path("path")?;
    let seen = fs::symlink_metadata(path).map(|metadata| format!("{} bytes", metadata.len()));
    Ok(call.tried("stat", path.to_string_lossy(), seen.map_err(|error| errno(&error))))
}

/// Leaves a program with capabilities where the host will see it.
pub(super) fn leave_capabilities(call: &mut Call<'_>) -> Probed {
    let path = call.path("directory")?.join("toolcell-capable");
    let left = File::create(&path)
        .map_err(|error| errno(&error))
        .and_then(|_file| surface::set_attribute(&name_of(&path), true));
    fs::remove_file(&path).unwrap_or_default();
    Ok(call.tried("setxattr", "security.capability", left.map(|()| "left".to_owned())))
}

/// Changes the mode of the program that it is itself, to what it is.
pub(super) fn change_itself(call: &mut Call<'_>) -> Probed {
    let path = Path::new("/proc/self/exe");
    let changed = fs::metadata(path).and_then(|metadata| fs::set_permissions(path, metadata.permissions()));
    Ok(told(call, "chmod", path, "changed", changed))
}

/// Maps a file that it has written as code.
pub(super) fn map_dropped_code(call: &mut Call<'_>) -> Probed {
    let path = call.directory().join("toolcell-code");
    let mapped = File::create(&path)
        .and_then(|mut file| file.write_all(&[0; 4096]))
        .and_then(|()| File::open(&path))
        .map_err(|error| errno(&error))
        .and_then(|file| surface::map_executable(file.as_fd()));
    fs::remove_file(&path).unwrap_or_default();
    Ok(match mapped {
        Ok(end) => call.tried_in_child("mmap", path.to_string_lossy(), "mapped", Ok::<attack::End, _>(end)),
        Err(errno) => call.tried("mmap", path.to_string_lossy(), Err(errno)),
    })
}
