//! Ready cells: built and verified before the call that will use them, their payload not started.
//!
//! Neighbours: `launch::supervisor` fills the shelf and takes from it. Never: starts or ends a cell itself, or gives
//! out one cell twice.
//!
//! ```text
//! put ──► coming ──built──► there ──► taken by one call
//!            └─────────────────┴───► pushed out by another, its plan forgotten, or dead: dropped, which kills it
//! ```

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::root;
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::sys::descriptor::{self, Interest};
use crate::sys::watcher::Watcher;
use crate::sys::{Errno, Result};

/// May a cell of this plan be built before it is called for?
///
/// Not when it denies a name that does not exist: that is an empty directory on the host for as long as the cell is
/// there, which is right for the time of a call only. And not without a private root, where what is granted is held by
/// rules that cannot be looked at again; nor with an overlay, which may not see what the host changes beneath it; nor where this host
/// reaches it, so that nobody comes to a cell before there is a call.
#[must_use]
pub fn may_wait(plan: &Plan) -> bool {
    !plan.steps.iter().any(|step| {
        matches!(
            step,
            Step::ReserveName { .. }
                | Step::ListenOutside { .. }
                | Step::MakePrivateDirectory { .. }
                | Step::MountChanges { .. }
        )
    })
}

/// What a file or directory is, whatever it is called.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// A number that has come free is given out again; the time of birth tells the two apart, where there is one.
    born: Option<SystemTime>,
}

/// What a cell of a plan would show if it were built now.
#[derive(Debug, PartialEq, Eq)]
pub struct Sources {
    /// What is mounted below a source shows in the cell too, if it was there before the cell was.
    mounts: u64,
    binds: Vec<Identity>,
    /// What is hidden loses its cover when the host renames something over it, or removes it. Both change the file, or
    /// its time of change when it comes back under the name by another link. That time says nothing of a log, whose
    /// names are looked after instead.
    hidden: Vec<(Identity, Option<(i64, i64)>)>,
    logs: u64,
}

impl Sources {
    /// Looks as the launch would: without following a link.
    ///
    /// # Errors
    /// The kernel's answer for the first source that cannot be looked at.
    pub(super) fn look(plan: &Plan, mounts: &mut Mounts, logs: &mut Logs) -> Result<Self> {
        // Before the sources: what is mounted over one, or renamed, meanwhile is a change the next time.
        let (mounts, changes) = (mounts.changes()?, logs.changes());
        let mut found = Self { mounts, binds: Vec::new(), hidden: Vec::new(), logs: changes };
        for step in &plan.steps {
            match step {
                Step::Bind { source, .. } => found.binds.push(Identity::of(&look(source)?)),
                Step::Hide { path, .. } => {
                    let path = on_the_host(plan, path).ok_or(Errno(libc::ENOENT))?;
                    let seen = look(&path)?;
                    let changed = (!logs.watched.contains(&path)).then(|| (seen.ctime(), seen.ctime_nsec()));
                    found.hidden.push((Identity::of(&seen), changed));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

impl Identity {
    fn of(seen: &Metadata) -> Self {
        Self { device: seen.dev(), inode: seen.ino(), born: seen.created().ok() }
    }
}

fn look(path: &Path) -> Result<Metadata> {
    Ok(File::from(root::open_path(path, 0)?).metadata()?)
}

/// Where a path of the cell is on the host: in the narrowest tree that shows it.
fn on_the_host(plan: &Plan, path: &Path) -> Option<PathBuf> {
    let trees = plan.steps.iter().filter_map(|step| match step {
        Step::Bind { source, target, .. } => Some((source, target, path.strip_prefix(target).ok()?)),
        _ => None,
    });
    let (source, _, rest) = trees.max_by_key(|(_, target, _)| target.as_os_str().len())?;
    // Joined with nothing, a file would be asked for as a directory.
    Some(if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) })
}

/// The host's table of mounts, of which only the changes are counted.
#[derive(Debug)]
pub(super) struct Mounts {
    table: File,
    changes: u64,
}

impl Mounts {
    /// # Errors
    /// The kernel's answer, where there is no `/proc`.
    pub(super) fn of_host() -> Result<Self> {
        Ok(Self { table: File::open("/proc/self/mountinfo")?, changes: 0 })
    }

    /// How often a change was seen so far: poll(2) tells of each once (`proc_pid_mountinfo(5)`).
    fn changes(&mut self) -> Result<u64> {
        let mut changed = [Interest { fd: Some(self.table.as_fd()), events: libc::POLLPRI, ready: 0 }];
        descriptor::poll(&mut changed, Some(Duration::ZERO))?;
        if changed.iter().any(|interest| interest.ready & libc::POLLPRI != 0) {
            self.changes += 1;
        }
        Ok(self.changes)
    }
}

/// The files that each call's records are written to. Of their changes only those of their names are counted.
#[derive(Debug, Default)]
pub(super) struct Logs {
    files: Vec<PathBuf>,
    /// Without one they are like any other file, so that every record changes them.
    watcher: Option<Watcher>,
    /// Those that were there.
    watched: Vec<PathBuf>,
    changes: u64,
}

impl Logs {
    /// These files, by their real paths.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let files = files.iter().filter_map(|path| std::fs::canonicalize(path).ok()).collect();
        let mut logs = Self { files, watcher: Watcher::new().ok(), ..Self::default() };
        logs.look_after();
        logs
    }

    fn look_after(&mut self) {
        let watched = |path: &&PathBuf| {
            let name = CString::new(path.as_os_str().as_bytes()).ok()?;
            self.watcher.as_ref()?.add_names(&name).ok()
        };
        self.watched = self.files.iter().filter(|path| watched(path).is_some()).cloned().collect();
    }

    /// How often a change was seen so far.
    fn changes(&mut self) -> u64 {
        if self.watcher.as_ref().is_some_and(Watcher::has_changed) {
            self.changes += 1;
            // Under one of the names there may be another file now.
            self.look_after();
        }
        self.changes
    }
}

/// Ready cells and those that are about to be, at most one a plan, oldest first.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    places: Vec<Place<T>>,
    closed: bool,
}

#[derive(Debug)]
struct Place<T> {
    plan: Weak<Plan>,
    cell: u64,
    coming: oneshot::Receiver<T>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { places: Vec::new(), closed: false }
    }
}

impl<T> Shelf<T> {
    /// A place for a cell of this plan, if it has none. The oldest makes room when there are `most`.
    pub(super) fn put(&mut self, plan: &Arc<Plan>, cell: u64, most: usize) -> Option<oneshot::Sender<T>> {
        if self.closed || most == 0 || self.place_of(plan).is_some() {
            return None;
        }
        self.places.drain(..(self.places.len() + 1).saturating_sub(most));
        let (cell_is_there, coming) = oneshot::channel();
        self.places.push(Place { plan: Arc::downgrade(plan), cell, coming });
        Some(cell_is_there)
    }

    /// Takes the cell of a plan off the shelf; it may still be coming.
    pub(super) fn take(&mut self, plan: &Arc<Plan>) -> Option<oneshot::Receiver<T>> {
        let at = self.place_of(plan)?;
        Some(self.places.remove(at).coming)
    }

    fn place_of(&self, plan: &Arc<Plan>) -> Option<usize> {
        // An address is not given out again while there is a `Weak` for it.
        self.places.iter().position(|place| Weak::as_ptr(&place.plan) == Arc::as_ptr(plan))
    }

    /// This cell has ended, or could not be built.
    pub(super) fn remove(&mut self, cell: u64) {
        self.places.retain(|place| place.cell != cell);
    }

    /// Drops the cells of plans that nobody has any more.
    pub(super) fn drop_unwanted(&mut self) {
        self.places.retain(|place| place.plan.strong_count() > 0);
    }

    /// Gives out everything, and takes nothing any more.
    pub(super) fn close(&mut self) -> Vec<oneshot::Receiver<T>> {
        self.closed = true;
        self.places.drain(..).map(|place| place.coming).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::plan::step::{Access, Kind};

    fn plan(steps: Vec<Step>) -> Arc<Plan> {
        Arc::new(Plan { floor: serde_json::from_str("\"full\"").unwrap(), steps })
    }

    fn binding(source: &Path) -> Arc<Plan> {
        plan(vec![Step::Bind {
            source: source.to_owned(),
            target: source.to_owned(),
            kind: Kind::Directory,
            access: Access::default(),
            devices: false,
            owner: None,
        }])
    }

    #[test]
    fn a_cell_is_taken_once_and_by_its_plan_only() {
        let (one, same) = (plan(vec![]), plan(vec![]));
        let mut shelf = Shelf::default();
        shelf.put(&one, 1, 4).unwrap().send('a').unwrap();
        assert!(shelf.put(&one, 2, 4).is_none(), "a second cell of the plan");
        assert!(shelf.take(&same).is_none(), "an equal plan of another grant");
        assert_eq!(shelf.take(&one).unwrap().try_recv(), Ok('a'));
        assert!(shelf.take(&one).is_none());
    }

    #[test]
    fn the_oldest_makes_room_and_is_dropped() {
        let plans = [plan(vec![]), plan(vec![]), plan(vec![])];
        let cell = Arc::new(());
        let mut shelf = Shelf::default();
        for (number, plan) in plans.iter().enumerate() {
            shelf.put(plan, number as u64, 2).unwrap().send(Arc::clone(&cell)).unwrap();
        }
        assert_eq!(Arc::strong_count(&cell), 3);
        let [first, second, third] = &plans;
        assert!(shelf.take(first).is_none());
        assert!(shelf.take(second).is_some() && shelf.take(third).is_some());
        assert!(shelf.put(first, 9, 0).is_none());
    }

    #[test]
    fn a_cell_goes_with_its_plan_its_end_and_the_session() {
        let plans = [plan(vec![]), plan(vec![]), plan(vec![])];
        let mut shelf: Shelf<()> = Shelf::default();
        let coming: Vec<_> =
            (0_u64..).zip(&plans).map(|(cell, plan)| shelf.put(plan, cell, 3).unwrap()).collect();
        let [first, second, third] = plans;
        drop(first);
        shelf.drop_unwanted();
        shelf.remove(1);
        assert!(coming.iter().map(oneshot::Sender::is_closed).eq([true, true, false]));
        assert!(shelf.take(&second).is_none());
        assert_eq!(shelf.close().len(), 1);
        assert!(shelf.take(&third).is_none() && shelf.put(&third, 5, 3).is_none());
    }

    #[test]
    fn a_plan_that_needs_a_place_on_the_host_is_run_for_its_call() {
        assert!(may_wait(&binding(Path::new("/usr"))));
        assert!(!may_wait(&plan(vec![Step::ReserveName { path: PathBuf::from("/x"), content: None }])));
    }

    #[test]
    fn what_is_hidden_lies_in_the_narrowest_tree() {
        let mut steps = Vec::new();
        for (source, target) in [("/host/a", "/a"), ("/other", "/a/b"), ("/file", "/a/b/file")] {
            steps.push(Step::Bind {
                source: source.into(),
                target: target.into(),
                kind: Kind::Directory,
                access: Access::default(),
                devices: false,
                owner: None,
            });
        }
        let plan = plan(steps);
        for (path, host) in [("/a/x", "/host/a/x"), ("/a/b/x", "/other/x"), ("/a/b/file", "/file")] {
            assert_eq!(on_the_host(&plan, Path::new(path)), Some(PathBuf::from(host)));
        }
        assert_eq!(on_the_host(&plan, Path::new("/b")), None);
    }

    #[test]
    fn another_directory_of_the_same_name_is_seen_and_another_content_is_not() {
        let place = std::env::temp_dir().join(format!("toolcell-ready-{}", std::process::id()));
        let (source, away) = (place.join("source"), place.join("away"));
        std::fs::create_dir_all(&source).unwrap();
        let plan = binding(&source);
        let mut mounts = Mounts::of_host().unwrap();
        let before = Sources::look(&plan, &mut mounts, &mut Logs::default()).unwrap().binds;
        std::fs::write(source.join("new"), "content").unwrap();
        assert_eq!(Sources::look(&plan, &mut mounts, &mut Logs::default()).unwrap().binds, before);
        std::fs::rename(&source, &away).unwrap();
        assert_eq!(Sources::look(&plan, &mut mounts, &mut Logs::default()).unwrap_err().0, libc::ENOENT);
        symlink(&away, &source).unwrap();
        assert_eq!(Sources::look(&plan, &mut mounts, &mut Logs::default()).unwrap_err().0, libc::ELOOP);
        std::fs::remove_file(&source).unwrap();
        std::fs::create_dir(&source).unwrap();
        assert_ne!(Sources::look(&plan, &mut mounts, &mut Logs::default()).unwrap().binds, before);
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn what_is_written_to_a_hidden_log_is_no_change_and_another_name_of_it_is() {
        let place = std::env::temp_dir().join(format!("toolcell-logs-{}", std::process::id()));
        let [log, other, denied] = ["log", "other", "denied"].map(|name| place.join(name));
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(&log, "1").unwrap();
        std::fs::write(&denied, "1").unwrap();
        let mut steps = binding(&place).steps.clone();
        steps.extend([&log, &denied].map(|path| Step::Hide { path: path.clone(), emptied: false }));
        let plan = plan(steps);
        let (mut mounts, mut logs) = (Mounts::of_host().unwrap(), Logs::of(&[log.clone(), other.clone()]));
        let mut look = || {
            let Sources { hidden, logs, .. } = Sources::look(&plan, &mut mounts, &mut logs).unwrap();
            (hidden, logs)
        };
        let mut before = look();
        std::fs::write(&log, "2").unwrap();
        assert_eq!(look(), before);
        let changes: [(&str, &dyn Fn()); 4] = [
            ("the same file by another link", &|| {
                std::fs::hard_link(&log, &other).unwrap();
                std::fs::remove_file(&log).unwrap();
                std::fs::rename(&other, &log).unwrap();
            }),
            ("away and back", &|| {
                std::fs::rename(&log, &other).unwrap();
                std::fs::rename(&other, &log).unwrap();
            }),
            ("another file", &|| {
                std::fs::write(&other, "1").unwrap();
                std::fs::rename(&other, &log).unwrap();
            }),
            ("what is no log", &|| std::fs::write(&denied, "2").unwrap()),
        ];
        for (what, change) in changes {
            change();
            assert_ne!(look(), before, "{what}");
            before = look();
            std::fs::write(&log, "3").unwrap();
            assert_eq!(look(), before, "{what}");
        }
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_mount_is_a_change_once() {
        let script = "echo; read mount; mount -t tmpfs none /mnt; echo; read end";
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        let mut child = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut turn = [0];
        output.read_exact(&mut turn).unwrap();
        let table = File::open(format!("/proc/{}/mountinfo", child.id())).unwrap();
        let mut mounts = Mounts { table, changes: 0 };
        assert_eq!(mounts.changes(), Ok(0));
        input.write_all(b"\n").unwrap();
        output.read_exact(&mut turn).unwrap();
        assert_eq!((mounts.changes(), mounts.changes()), (Ok(1), Ok(1)));
        drop(input);
        child.wait().unwrap();
    }
}
