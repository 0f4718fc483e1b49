//! Asks systemd for a scope of this process's own, with its controllers delegated: `StartTransientUnit` of the user's
//! service manager, over the user's bus (org.freedesktop.systemd1(5)).
//!
//! ```text
//! this:     greeting, Hello, AddMatch, StartTransientUnit, all in one go
//! bus:      OK ─ answers ─ … ─ signal JobRemoved: done, and this process lives in the scope
//! ```
//!
//! Neighbours: `host::cgroups` asks where nothing is delegated; `host::bus` has the words. Never: names another process
//! than the caller; takes the answer for the fact, which the caller reads from `/proc`.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use super::bus::{Body, Bus, Method, call};
use super::probe::Failed;
use crate::sys::Errno;

/// How long a service manager may take: some ten milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// No scope was given.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) failed: Failed,
    /// What the other side said, if it said anything.
    pub(super) said: Option<String>,
}

/// The socket of a user's bus, if it is there and his own. The variable may be another user's, as under `sudo`.
pub(super) fn bus_of(uid: u32) -> Option<PathBuf> {
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    named.into_iter().chain([usual]).map(|directory| directory.join("bus")).find(|bus| {
        fs::symlink_metadata(bus).is_ok_and(|found| found.uid() == uid && found.file_type().is_socket())
    })
}

/// Has this process moved into a new scope of that name.
pub(super) fn ask(bus: &Path, uid: u32, unit: &str) -> Result<(), Refused> {
    converse(bus, uid, unit, PATIENCE)
}

fn converse(path: &Path, uid: u32, unit: &str, patience: Duration) -> Result<(), Refused> {
    let shown = path.to_string_lossy();
    let failed = |call: &'static str| {
        let object = shown.clone();
        move |errno: Errno| Refused { failed: Failed::new(call, &object, errno), said: None }
    };
    let mut bus = Bus::connect(path, patience).map_err(failed("connect"))?;
    let start = || Failed::new(START.member, unit, Errno(libc::EPROTO));
    bus.greet(uid, &calls(unit)).and_then(|()| bus.welcome()).map_err(failed("greet"))?;
    loop {
        let waiting = |errno| Refused { failed: Failed { errno, ..start() }, said: None };
        let message = bus.next().map_err(waiting)?;
        if let (Some(name), Some(_)) = (message.error, message.answers) {
            let denied = name == "org.freedesktop.DBus.Error.AccessDenied";
            let errno = Errno(if denied { libc::EACCES } else { libc::EPROTO });
            let said = message.texts.first().map_or_else(|| name.clone(), |text| format!("{text} ({name})"));
            return Err(Refused { failed: Failed { errno, ..start() }, said: Some(said) });
        }
        // Others' jobs are told too. The texts of this signal: path of the job, unit, result.
        if let (Some("JobRemoved"), [_, of, result]) = (message.signal.as_deref(), message.texts.as_slice())
            && of == unit
        {
            let said = Some(format!("the job ended as `{result}`"));
            return if result == "done" { Ok(()) } else { Err(Refused { failed: start(), said }) };
        }
    }
}

const HELLO: Method = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

const START: Method = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "StartTransientUnit",
};

fn calls(unit: &str) -> Vec<Vec<u8>> {
    let mut rule = Body::default();
    rule.text(&format!(
        "type='signal',sender='{}',interface='{}',member='JobRemoved'",
        START.destination, START.interface
    ));
    vec![
        call(1, HELLO, "", &Body::default()),
        call(2, Method { member: "AddMatch", ..HELLO }, "s", &rule),
        call(3, START, "ssa(sv)a(sa(sv))", &transient(unit)),
    ]
}

/// Name, mode, properties, further units.
fn transient(unit: &str) -> Body {
    let mut body = Body::default();
    body.text(unit);
    body.text("fail");
    let property = |body: &mut Body, name, kind, value: &dyn Fn(&mut Body)| {
        body.structure(|body| {
            body.text(name);
            body.signature(kind);
            value(body);
        });
    };
    body.array(8, |body| {
        property(body, "Description", "s", &|body| body.text("Cells of toolcell"));
        property(body, "Delegate", "b", &|body| body.number(1));
        // The kernel ends processes in cells for want of memory; that is not the unit's failure to keep.
        property(body, "CollectMode", "s", &|body| body.text("inactive-or-failed"));
        // Zero is whoever asks, as the kernel tells the bus: right in every pid namespace.
        property(body, "PIDs", "au", &|body| body.array(4, |body| body.number(0)));
    });
    body.array(8, |_none| {});
    body
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const UNIT: &str = "toolcell-1-2-3-4.scope";

    /// A message of a bus: kind, header fields by code, body with its signature.
    fn told(kind: u8, member: &str, error: &str, answers: u32, signature: &str, body: &[&str]) -> Vec<u8> {
        let mut values = Vec::new();
        let put = |values: &mut Vec<u8>, text: &str| {
            values.resize(values.len().next_multiple_of(4), 0);
            values.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            values.extend(text.as_bytes());
            values.push(0);
        };
        let mut fields = Vec::new();
        for (code, sort, text) in [(3, b's', member), (4, b's', error)] {
            if !text.is_empty() {
                fields.resize(fields.len().next_multiple_of(8), 0);
                fields.extend([code, 1, sort, 0]);
                put(&mut fields, text);
            }
        }
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([5, 1, b'u', 0]);
        fields.extend(answers.to_le_bytes());
        fields.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap()]);
        fields.extend(signature.bytes().chain([0]));
        if signature.starts_with('u') {
            values.extend(77_u32.to_le_bytes());
        }
        body.iter().for_each(|text| put(&mut values, text));
        let mut message = vec![b'l', kind, 0, 1];
        message.extend(u32::try_from(values.len()).unwrap().to_le_bytes());
        message.extend(5_u32.to_le_bytes());
        message.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        fields.resize(fields.len().next_multiple_of(8), 0);
        [message, fields, values].concat()
    }

    fn removed(unit: &str, result: &str) -> Vec<u8> {
        told(4, "JobRemoved", "", 0, "uoss", &["/job/77", unit, result])
    }

    /// What comes of these words of a bus, and what was said to it.
    fn with_bus(words: &[&[u8]]) -> (Result<(), Refused>, Vec<u8>) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("toolcell-bus-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let (expected, answer) = (calls(UNIT).concat().len(), words.concat());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = vec![0; "\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n".len() + expected];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(&answer).unwrap();
            heard
        });
        let came = converse(&path, 1000, UNIT, Duration::from_secs(60));
        fs::remove_file(&path).unwrap();
        (came, server.join().unwrap())
    }

    #[test]
    fn the_end_of_the_own_job_is_the_answer() {
        let returned = told(2, "", "", 3, "o", &["/job/77"]);
        let (came, heard) =
            with_bus(&[b"OK 0123\r\n", &returned, &removed("other.scope", "failed"), &removed(UNIT, "done")]);
        assert!(came.is_ok(), "{came:?}");
        assert!(heard.starts_with(b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\nl\x01"));
    }

    #[test]
    fn a_refusal_is_told_with_its_own_words() {
        let name = "org.freedesktop.DBus.Error.AccessDenied";
        let refused = told(3, "", name, 3, "s", &["Access denied"]);
        let (came, _) = with_bus(&[b"OK 0123\r\n", &refused]);
        let refused = came.unwrap_err();
        assert_eq!(refused.failed, Failed::new("StartTransientUnit", UNIT, Errno(libc::EACCES)));
        assert_eq!(refused.said.as_deref(), Some("Access denied (org.freedesktop.DBus.Error.AccessDenied)"));

        let (came, _) = with_bus(&[b"OK 0123\r\n", &removed(UNIT, "failed")]);
        assert_eq!(came.unwrap_err().said.as_deref(), Some("the job ended as `failed`"));
    }

    #[test]
    fn a_bus_that_breaks_off_or_knows_nobody_is_no_answer() {
        let (came, _) = with_bus(&[b"REJECTED EXTERNAL\r\n"]);
        let errno = came.unwrap_err().failed.errno;
        assert_eq!(errno, Errno(libc::EACCES));
        let (came, _) = with_bus(&[b"OK 0123\r\n", &[b'l', 2, 0, 1, 9]]);
        assert_eq!(came.unwrap_err().failed.errno, Errno(libc::ECONNRESET));
        let (came, _) =
            with_bus(&[b"OK 0123\r\n", &[b'l', 2, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(came.unwrap_err().failed.errno, Errno(libc::EMSGSIZE));
        let gone = converse(Path::new("/nonexistent/bus"), 1000, UNIT, Duration::from_secs(60));
        assert_eq!(gone.unwrap_err().failed, Failed::new("connect", "/nonexistent/bus", Errno(libc::ENOENT)));
    }
}
