//! Files that a cell opens or runs and does not have: which of them the host has, so that the cell was refused them.
//!
//! ```text
//! told ──► name read from memory ──► can the cell open it? ──yes──► the call goes on
//!                                        └──no──► the call goes on; is it on the host? ──yes──► noted
//! ```
//!
//! Neighbours: `refusals` hands on the calls that the program allows. `plan::shown` knows the cell, `presence` the host. Never:
//! decides about a call; follows a link, so that what is behind one stays untold.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::notes::{Note, Notes};
use super::presence::Host;
use super::refusals::{blank, noted};
use crate::launch::memory::{Found, Memory, Question};
use crate::outcome::{Coverage, Evidence, Layer, Violation};
use crate::plan::shown::{Names, Shown};
use crate::plan::step::{Attempts, Observe, Step};
use crate::plan::why::{self, Operation};
use crate::plan::{Plan, seccomp};
use crate::policy::Policy;
use crate::sys::notify::{self, Notification};
use crate::sys::{Errno, Result, kernel_file};

/// Names of one cell that are looked for on the host.
const MOST_LOOKS: usize = 1024;
/// Opens of one cell whose names are read. A build of a large program has some ten thousand.
const MOST_READ: u64 = 1 << 18;

/// Why a file could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lack {
    /// No rule grants it.
    NotShown,
    /// It is covered.
    Hidden,
    /// It was to be changed, and is in a tree that can be read only.
    ReadOnly { tree: PathBuf, protected: bool },
}

/// A file that a cell lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lacking {
    path: PathBuf,
    operation: Operation,
    lack: Lack,
    errno: Errno,
    /// What would have to be granted, if not the file: the directory that it was to be made in.
    within: bool,
}

/// One call to open a file that the cell lacks, before the host was looked at.
#[derive(Debug)]
struct Asked {
    lacking: Lacking,
    /// Where it would be on the host.
    source: PathBuf,
    /// It is made if it is not there.
    makes: bool,
    /// One that is there would have been opened.
    opens: bool,
}

/// The files of one cell.
#[derive(Debug)]
pub(super) struct Files {
    /// Every open is told.
    pub(super) opens: bool,
    names: Names,
    host: Option<Host>,
    notes: Notes<Lacking>,
    /// Looked for, and nowhere.
    absent: BTreeSet<PathBuf>,
    looks: usize,
    read: u64,
    /// Names that could not be had.
    unread: u64,
}

impl Files {
    /// Of a plan that has some told.
    pub(super) fn of(plan: &Plan) -> Option<Self> {
        let told = |step: &Step| match step {
            Step::Seccomp { observe, attempts, .. } => {
                observe.filter(|observe| *attempts != Attempts::Untold || *observe == Observe::Files)
            }
            _ => None,
        };
        let observe = plan.steps.iter().find_map(told)?;
        Some(Self {
            opens: observe == Observe::Files,
            names: Names::of(plan)?,
            host: None,
            notes: Notes::new(),
            absent: BTreeSet::new(),
            looks: 0,
            read: 0,
            unread: 0,
        })
    }

    /// Lets a call go on that opens or runs a file, and notes it if the cell was refused what the host has.
    ///
    /// # Errors
    /// The kernel's errno for the answer.
    pub(super) fn answer(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Notification,
        memory: Option<&Memory>,
        now: Duration,
    ) -> Result<()> {
        let asked = if self.read < MOST_READ { self.asked(listener, call, memory) } else { None };
        // Looking at the host takes its time, and holds nobody up.
        notify::proceed(listener, call.id)?;
        if let Some(asked) = asked {
            self.judge(asked, memory, now);
        }
        Ok(())
    }

    /// What was noted is in a record.
    pub(super) fn forget(&mut self) {
        self.notes.clear();
    }

    /// Nothing is noted.
    pub(super) const fn is_empty(&self) -> bool {
        self.notes.noted.is_empty()
    }

    /// Many were told: who goes on like that waits now and then.
    pub(super) const fn is_flood(&self) -> bool {
        self.read >= MOST_READ
    }

    /// What this call asks for, if the cell lacks it. The call still waits when this is given.
    fn asked(
        &mut self,
        listener: BorrowedFd<'_>,
        call: &Notification,
        memory: Option<&Memory>,
    ) -> Option<Asked> {
        let (directory, address, flags) = named(call);
        self.read += 1;
        let question = Question { pid: call.pid, address, directory: Some(directory) };
        let path = match question.look_by(memory) {
            Ok(found) => match absolute(&found) {
                Some(path) => path,
                None => {
                    // An empty name is none; another one was too long to be read.
                    self.unread += u64::from(found.bytes.first() != Some(&0));
                    return None;
                }
            },
            Err(errno) => {
                // Else there is no name, no such directory, or nobody any more who asked.
                let gone = matches!(errno, Errno(libc::EFAULT | libc::ESRCH | libc::ENOENT));
                self.unread += u64::from(!gone);
                return None;
            }
        };
        let asked = lacking(&self.names, path, flags)?;
        // Else the thread id may have been another's when its memory was read.
        notify::still_waits(listener, call.id).then_some(asked)
    }

    /// Nobody was refused what is nowhere.
    fn judge(&mut self, asked: Asked, memory: Option<&Memory>, now: Duration) {
        let Asked { mut lacking, source, makes, opens } = asked;
        if lacking.lack == Lack::Hidden {
            return self.notes.add(lacking, now);
        }
        if opens && self.notes.again(&lacking, now) {
            return;
        }
        if self.is_on_host(&source, memory) {
            if opens {
                self.notes.add(lacking, now);
            }
        } else if makes && source.parent().is_some_and(|parent| self.is_on_host(parent, memory)) {
            lacking.within = true;
            self.notes.add(lacking, now);
        }
    }

    fn is_on_host(&mut self, path: &Path, memory: Option<&Memory>) -> bool {
        if self.absent.contains(path) || self.looks >= MOST_LOOKS {
            return false;
        }
        self.looks += 1;
        let host = self.host.get_or_insert_with(|| {
            Host::new(&match memory {
                Some(memory) => memory.mounts(),
                None => kernel_file::read("/proc/self/mountinfo").unwrap_or_default(),
            })
        });
        let has = host.has(path);
        if !has {
            self.absent.insert(path.to_owned());
        }
        has
    }

    /// What the receipt is to say of the private root: links are not followed, so it is never all.
    pub(super) const fn coverage(&self) -> Coverage {
        if self.read > 0 && self.unread == self.read { Coverage::Blind } else { Coverage::Sampled }
    }

    pub(super) fn violations(&self, policy: &Policy) -> impl Iterator<Item = Violation> {
        let others = (self.notes.others > 0).then(|| Violation {
            layer: Layer::Root,
            operation: "other files".to_owned(),
            count: self.notes.others,
            rule: "the private root".to_owned(),
            evidence: Evidence::Supervisor,
            ..blank()
        });
        self.notes.noted.iter().map(|note| violation(note, policy)).chain(others)
    }
}

/// The directory's descriptor, the address of the path, and the flags of what is opened and not run.
fn named(call: &Notification) -> (i32, u64, Option<u64>) {
    let [first, second, third, ..] = call.arguments;
    match i64::from(call.number) {
        libc::SYS_openat => {
            // The kernel takes the low half, an `int`.
            let number = u32::try_from(first & u64::from(u32::MAX)).unwrap_or_default();
            (number.cast_signed(), second, Some(third))
        }
        libc::SYS_creat => {
            (libc::AT_FDCWD, first, Some(bits(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC)))
        }
        _ => (libc::AT_FDCWD, first, (!seccomp::runs(call.number)).then_some(second)),
    }
}

fn bits(flags: libc::c_int) -> u64 {
    u64::from(flags.cast_unsigned())
}

/// The path from the root of the cell, without `.` and `..`; as its name goes.
fn absolute(found: &Found) -> Option<PathBuf> {
    let end = found.bytes.iter().position(|byte| *byte == 0)?;
    let path = Path::new(OsStr::from_bytes(found.bytes.get(..end)?));
    if path.as_os_str().is_empty() {
        return None;
    }
    let mut whole = PathBuf::new();
    if path.is_relative() {
        whole = found.directory.clone().filter(|directory| directory.is_absolute())?;
    }
    for component in path.components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            other => whole.push(other),
        }
    }
    Some(whole)
}

/// What a cell with these names lacks when it opens this path, or, without flags, runs it.
fn lacking(names: &Names, path: PathBuf, flags: Option<u64>) -> Option<Asked> {
    let has = |flag| flags.is_some_and(|flags| flags & bits(flag) != 0);
    let (writes, makes) = (has(libc::O_ACCMODE) || has(libc::O_TRUNC), has(libc::O_CREAT));
    let mut opens = true;
    let shown = names.look(&path);
    let emptied = shown == Shown::Emptied;
    let (lack, source) = match shown {
        Shown::ReadOnly { tree, source, protected } if writes || makes => {
            // What is there is not made, and can be read.
            opens = writes && !(makes && has(libc::O_EXCL));
            (Lack::ReadOnly { tree, protected }, source)
        }
        Shown::There | Shown::ReadOnly { .. } => return None,
        Shown::Hidden | Shown::Emptied => (Lack::Hidden, path.clone()),
        Shown::Not => (Lack::NotShown, path.clone()),
    };
    // A directory that is shown for what lies below it takes nothing new.
    let within = || {
        let parent = path.parent().map(|parent| names.look(parent));
        parent.is_some_and(|parent| !matches!(parent, Shown::Not | Shown::Emptied))
    };
    let errno = Errno(match lack {
        Lack::Hidden if !emptied => libc::EACCES,
        Lack::Hidden | Lack::NotShown if !(makes && within()) => libc::ENOENT,
        Lack::Hidden | Lack::NotShown | Lack::ReadOnly { .. } => libc::EROFS,
    });
    let operation = match flags {
        None => Operation::Exec,
        Some(_) if writes || makes => Operation::Write,
        Some(_) => Operation::Read,
    };
    let lacking = Lacking { path, operation, lack, errno, within: false };
    Some(Asked { lacking, source, makes, opens })
}

fn violation(note: &Note<Lacking>, policy: &Policy) -> Violation {
    let Note { what: Lacking { path, operation, lack, errno, within }, .. } = note;
    let granted = if *within { path.parent().unwrap_or(path) } else { path };
    let grant = || why::grant(*operation, granted).ok();
    let (rule, allow) = match lack {
        Lack::NotShown => ("the private root: no rule grants it".to_owned(), grant()),
        Lack::ReadOnly { tree, protected: true } => {
            (format!("the protection of `{}`", tree.display()), Some(why::spelled_out(tree)))
        }
        Lack::ReadOnly { .. } => ("the private root: it can be read only".to_owned(), grant()),
        Lack::Hidden => {
            let denied = policy.filesystem.deny.iter().find(|rule| path.starts_with(&rule.path));
            let rule = denied.map(|rule| format!("`filesystem.deny` of `{}`", rule.path.display()));
            (rule.unwrap_or_else(|| "what the command does not need".to_owned()), None)
        }
    };
    Violation {
        layer: Layer::Root,
        operation: if *operation == Operation::Exec { "execve" } else { "open" }.to_owned(),
        object: path.to_string_lossy().into_owned(),
        rule,
        allow,
        // That the call was made is the kernel's word; that it came to nothing follows from what the cell is.
        evidence: Evidence::Supervisor,
        ..noted(note, *errno)
    }
}
