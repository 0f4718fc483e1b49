//! Writes figures and spans where the operator wants them.
//!
//! Neighbours: `guard::process` gives each call that ended, and says when a session is over. Never: leaves half a file of
//! figures; writes one more often than it is wanted.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Instant;

use super::event::Event;
use super::state::Store;
use super::{otel, prometheus};
use crate::audit::{open_private, to_line};
use crate::policy::config::guard::Export;

/// Figures are for another user's exporter; they hold names of tools and numbers.
const FIGURES_MODE: u32 = 0o644;

/// Where figures and spans go.
#[derive(Debug)]
pub(super) struct Exports {
    export: Option<Export>,
    owner: u32,
    /// When figures may be written again.
    next: Option<Instant>,
    /// There are newer ones than those in the file.
    waiting: bool,
    /// What failed was told already.
    told: bool,
}

impl Exports {
    pub(super) const fn new(export: Option<Export>, owner: u32) -> Self {
        Self { export, owner, next: None, waiting: false, told: false }
    }

    /// A call has ended, and is counted. Gives what a person should know.
    pub(super) fn ended(&mut self, event: &Event, store: Option<&Store>, now: Instant) -> Option<String> {
        let Some(export) = &self.export else { return None };
        let appended = export.otel.as_ref().map_or(Ok(()), |path| append(path, self.owner, event));
        self.waiting = export.prometheus.is_some();
        let failed = self.of(appended);
        self.look(store, now).or(failed)
    }

    /// Writes figures, if there are new ones and it is time.
    pub(super) fn look(&mut self, store: Option<&Store>, now: Instant) -> Option<String> {
        if !self.waiting || self.next.is_some_and(|next| next > now) {
            return None;
        }
        self.next = self.export.as_ref().map(|export| now + export.every);
        self.write(store)
    }

    /// Writes figures, if there are new ones.
    pub(super) fn finish(&mut self, store: Option<&Store>) -> Option<String> {
        if self.waiting { self.write(store) } else { None }
    }

    /// When figures are written, if there are new ones.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.filter(|_| self.waiting)
    }

    fn write(&mut self, store: Option<&Store>) -> Option<String> {
        self.waiting = false;
        let path = self.export.as_ref().and_then(|export| export.prometheus.as_ref());
        let (Some(path), Some(store)) = (path, store) else { return None };
        let written = replace(path, store);
        self.of(written)
    }

    /// Tells of the first failure, and of none more until something works again.
    fn of(&mut self, done: Result<(), String>) -> Option<String> {
        let failed = done.err();
        let told = std::mem::replace(&mut self.told, failed.is_some());
        failed.filter(|_| !told)
    }
}

fn append(path: &Path, owner: u32, event: &Event) -> Result<(), String> {
    let random = || -> io::Result<([u8; 16], [u8; 8])> {
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        let mut source = File::open("/dev/urandom")?;
        source.read_exact(&mut trace)?;
        source.read_exact(&mut span)?;
        Ok((trace, span))
    };
    let append = || -> Result<(), Box<dyn std::error::Error>> {
        let (trace, span) = random()?;
        let line = to_line(&otel::span(event, trace, span))?;
        Ok(open_private(path, owner, true)?.write_all(&line)?)
    };
    append().map_err(|error| format!("a span is not written to `{}`: {error}", path.display()))
}

/// Puts figures in the place of the ones before.
fn replace(path: &Path, store: &Store) -> Result<(), String> {
    let failed =
        |error: &dyn std::error::Error| format!("figures are not written to `{}`: {error}", path.display());
    let mut servers = BTreeMap::new();
    for server in store.servers().map_err(|error| failed(&error))? {
        let state = store.read(&server).map_err(|error| failed(&error))?;
        servers.insert(server, state);
    }
    // A name of its own for each process, and none that an exporter takes for figures.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Path::new(&name);
    let write = || -> io::Result<()> {
        drop(fs::remove_file(new));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FIGURES_MODE).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(new)?;
        file.set_permissions(fs::Permissions::from_mode(FIGURES_MODE))?;
        file.write_all(prometheus::text(&servers).as_bytes())?;
        fs::rename(new, path)
    };
    write().map_err(|error| {
        drop(fs::remove_file(new));
        failed(&error)
    })
}
