//! The launcher process: one thread, no secret, no client's data; it makes cells and waits for them.
//!
//! Neighbours: started by `commands::run` before anything else, spoken to by `launch::supervisor`. Never: reads a
//! profile, opens the client's stdin or stdout, outlives the supervisor by more than it takes to end the cells.
//!
//! ```text
//! poll ── Prepare ──► lay out
//!   │ ─── Forget ───► drop what was laid out
//!   │ ─── Launch ───► spawn, answer Launched (init's pidfd and channel) or Refused
//!   │ ─── Weigh ────► give a cell another share of the processors
//!   │ ─── PutIn ────► a child mounts in the places of a cell, and answers by itself
//!   │ ─── Review ───► look at what an ended cell wrote, do it or not, answer Reviewed
//!   │ ─── a question about memory ──► read it, answer
//!   │ ─── a cell's init is gone ──► wait, answer Ended
//!   └─── the supervisor is gone ──► kill every cell, wait, remove their cgroups, exit
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cgroup::CellCgroup;
use super::changes::Reviewed;
use super::memory::{self, Memory};
use super::spawn::{self, Init, Prepared, Started, Stdio};
use super::{Kept, LaunchError, own, places};
use crate::outcome::Reached;
use crate::plan::Plan;
use crate::sys::descriptor::{self, Interest};
use crate::sys::process::{self, Cloned, Exit};
use crate::sys::{Errno, Result, socket};

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "plans and cells are told apart by the numbers that the supervisor gives them"
)]
pub enum Request {
    /// With one descriptor: a file that holds the plan.
    Prepare { plan: u64 },
    /// No more cells of this plan are wanted.
    Forget { plan: u64 },
    /// With three: the payload's stdin, stdout, stderr. A held cell is built, and its payload started when init is told.
    Launch { cell: u64, plan: u64, hold: bool },
    /// Sets a cell's share of the processors.
    Weigh { cell: u64, weight: Weight },
    /// With four: the steps, who waits for what became of them, and of the cell its mount namespace and its private root, writable.
    PutIn { plan: u64 },
    /// With one: what a cell of this plan, of which no process is left, wrote to overlays over `kept`.
    /// It is done if it may be, unless this is to look only.
    Review { review: u64, plan: u64, kept: Kept, look: bool },
}

/// A cell's share of the processors against those of its neighbours; no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Of what is usual.
    Tenth,
    /// What every cell has.
    Usual,
}

/// To the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the values are those of `spawn::Started` and of `process::wait`")]
pub enum Answer {
    /// With two descriptors: init's pidfd and its channel.
    Launched {
        cell: u64,
        init: libc::pid_t,
        cgroup: Option<CellCgroup>,
        reserved: Vec<PathBuf>,
        private: Option<PathBuf>,
        listening: Vec<Reached>,
    },
    /// A step on the launcher's side failed; nothing is left of the cell.
    Refused { cell: u64, error: LaunchError },
    /// Every process of the cell is dead; its cgroup is still there to be read.
    Ended { cell: u64, exit: Exit, cpu_us: u64 },
    /// What a cell changed, and what became of it.
    Reviewed { review: u64, reviewed: Reviewed },
}

/// The longest message on this socket; plans go in files, and what is told of changes is bounded.
pub(super) const MESSAGE_LIMIT: usize = 64 * 1024;

/// The supervisor's end of a launcher that has just been started.
#[derive(Debug)]
pub struct Handle {
    pub(super) socket: OwnedFd,
    pub(super) memory: Memory,
    pub(super) pidfd: OwnedFd,
    pub(super) pid: libc::pid_t,
}

/// Forks the launcher. Call it before the process has a second thread, a secret, or a line of input.
///
/// # Errors
/// The kernel's errno.
pub fn start() -> Result<Handle> {
    let (ours, theirs) = socket::pair()?;
    let (asking, asked) = socket::pair()?;
    match process::clone3(0, None)? {
        Cloned::Child => {
            drop((ours, asking));
            let status = match detach().and_then(|()| serve(theirs.as_fd(), asked.as_fd())) {
                Ok(()) => 0,
                Err(_errno) => 1,
            };
            process::exit_now(status)
        }
        Cloned::Parent(pid, pidfd) => Ok(Handle { socket: ours, memory: Memory::new(asking), pidfd, pid }),
    }
}

/// Away from the client's descriptors, the terminal's signals and the supervisor's environment, and confined.
fn detach() -> Result<()> {
    process::set_name(c"toolcell-launch");
    process::wipe_environment();
    process::setsid()?;
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    for number in 0..3 {
        descriptor::duplicate_to(null.as_fd(), number, false)?;
    }
    own::filter_launcher()?;
    own::confine_launcher()
}

#[derive(Debug, Default)]
struct Launcher {
    plans: BTreeMap<u64, std::result::Result<Prepared, LaunchError>>,
    cells: BTreeMap<u64, Started>,
    /// Of cells of whose end the supervisor was told: it reads their counters, and removes them if it lives so long.
    told: Vec<CellCgroup>,
    /// Children that put something into a cell.
    putting: Vec<(libc::pid_t, OwnedFd)>,
}

fn serve(socket: BorrowedFd<'_>, asked: BorrowedFd<'_>) -> Result<()> {
    let mut launcher = Launcher::default();
    let answer = launcher.run(socket, asked);
    launcher.end_all();
    answer
}

impl Launcher {
    fn run(&mut self, socket: BorrowedFd<'_>, asked: BorrowedFd<'_>) -> Result<()> {
        let mut buffer = vec![0; MESSAGE_LIMIT];
        loop {
            let own = [socket, asked].map(|fd| Interest { fd: Some(fd), events: libc::POLLIN, ready: 0 });
            let mut interests = own.to_vec();
            let order: Vec<u64> = self.cells.keys().copied().collect();
            for started in self.cells.values() {
                interests.push(Interest { fd: Some(started.pidfd.as_fd()), events: libc::POLLIN, ready: 0 });
            }
            for (_, pidfd) in &self.putting {
                interests.push(Interest { fd: Some(pidfd.as_fd()), events: libc::POLLIN, ready: 0 });
            }
            descriptor::poll(&mut interests, None)?;
            let ready: Vec<bool> = interests.iter().map(|i| i.ready != 0).collect();
            // Ends before launches, so that a place is free when the next one asks for it.
            for (cell, _) in order.iter().zip(ready.iter().skip(own.len())).filter(|(_, ready)| **ready) {
                self.reap(*cell, socket)?;
            }
            let mut over = ready.iter().skip(own.len() + order.len()).copied();
            self.putting.retain(|(pid, _)| !(over.next() == Some(true) && process::wait(*pid).is_ok()));
            // A refused call waits for this, before what may take longer; without an answer it is refused too.
            if ready.get(1) == Some(&true) {
                let _unanswered = memory::answer(asked).is_err();
            }
            if ready.first() == Some(&true) {
                match socket::receive_what_fits(socket, &mut buffer) {
                    Ok(None) | Err(Errno(libc::ECONNRESET)) => return Ok(()),
                    Err(errno) => return Err(errno),
                    Ok(Some((count, descriptors))) => {
                        let bytes = buffer.get(..count).unwrap_or_default();
                        let request =
                            serde_json::from_slice(bytes).map_err(|_foreign| Errno(libc::EPROTO))?;
                        self.answer(request, descriptors, socket)?;
                    }
                }
            }
        }
    }

    fn answer(&mut self, request: Request, descriptors: Vec<OwnedFd>, socket: BorrowedFd<'_>) -> Result<()> {
        match request {
            Request::Prepare { plan } => {
                let prepared = match descriptors.into_iter().next() {
                    Some(file) => Prepared::new(read_plan(File::from(file))?),
                    None => Err(no_room("the plan")),
                };
                self.plans.insert(plan, prepared);
                Ok(())
            }
            Request::Forget { plan } => {
                self.plans.remove(&plan);
                Ok(())
            }
            Request::Weigh { cell, weight } => {
                let started = self.cells.get(&cell);
                let weighed =
                    started.and_then(|started| started.cgroup.as_ref()).map(|made| made.weigh(weight));
                // One that cannot have what every cell has is nobody's. Its supervisor hears of its end.
                if let (Some(Err(_)), Some(started), Weight::Usual) = (weighed, started, weight) {
                    let _gone = process::pidfd_send_signal(started.pidfd.as_fd(), libc::SIGTERM).is_err();
                }
                Ok(())
            }
            Request::Review { review, plan, kept, look } => {
                let lost = || LaunchError::new("review", "what the cell wrote", Errno(libc::EMFILE));
                let reviewed = match (self.plans.get(&plan), descriptors.first()) {
                    (Some(Ok(prepared)), Some(memory)) => {
                        Reviewed::of(prepared.plan(), memory.as_fd(), &kept, look)
                    }
                    _ => Reviewed::failed(lost()),
                };
                send(socket, &Answer::Reviewed { review, reviewed }, &[])
            }
            Request::PutIn { plan } => {
                // Who waits hears nothing more, and that is an answer.
                let _nobody = self.put_in(plan, descriptors).is_err();
                Ok(())
            }
            Request::Launch { cell, plan, hold } => {
                let mut descriptors = descriptors.into_iter();
                let stdio = (descriptors.next(), descriptors.next(), descriptors.next());
                let started = match (self.plans.get(&plan), stdio) {
                    (None, _) => Err(LaunchError::new("clone", "unknown plan", Errno(libc::EPROTO))),
                    (Some(Err(error)), _) => Err(error.clone()),
                    (Some(Ok(prepared)), (Some(stdin), Some(stdout), Some(stderr))) => {
                        let init = if hold { Init::Held } else { Init::New };
                        spawn::start(prepared, Stdio { stdin, stdout, stderr }, cell, init)
                    }
                    (Some(Ok(_)), _) => Err(no_room("the pipes of the cell")),
                };
                match started {
                    Ok(started) => {
                        let answer = Answer::Launched {
                            cell,
                            init: started.pid,
                            cgroup: started.cgroup.clone(),
                            reserved: started.reserved.paths(),
                            private: started.private.as_ref().map(|made| made.path().to_owned()),
                            listening: started.outside.listening().to_vec(),
                        };
                        match send(socket, &answer, &[started.pidfd.as_fd(), started.channel.as_fd()]) {
                            // This user has more descriptors under way than this process may have (unix(7)).
                            Err(errno @ Errno(libc::ETOOMANYREFS)) => {
                                self.end(started);
                                let error = LaunchError::new("clone", "the descriptors of the cell", errno);
                                send(socket, &Answer::Refused { cell, error }, &[])
                            }
                            // Also when nobody was told: then it is ended with all others.
                            sent => {
                                self.cells.insert(cell, started);
                                sent
                            }
                        }
                    }
                    Err(error) => send(socket, &Answer::Refused { cell, error }, &[]),
                }
            }
        }
    }

    /// By a child: it looks at paths of the host, which may take as long as it likes.
    fn put_in(&mut self, plan: u64, descriptors: Vec<OwnedFd>) -> Result<()> {
        let (Some(Ok(prepared)), Ok([steps, answer, namespace, places])) =
            (self.plans.get(&plan), <[OwnedFd; 4]>::try_from(descriptors))
        else {
            return Err(Errno(libc::EPROTO));
        };
        let steps = read_plan(File::from(steps))?.steps;
        match process::clone3(0, None)? {
            Cloned::Child => {
                let put = places::put_in(prepared.plan(), &steps, namespace.as_fd(), places.as_fd());
                let told = serde_json::to_vec(&put.err()).map_err(|_unprintable| Errno(libc::EPROTO));
                let told = told.and_then(|bytes| socket::send(answer.as_fd(), &bytes, &[]));
                process::exit_now(i32::from(told.is_err()))
            }
            Cloned::Parent(pid, pidfd) => {
                self.putting.push((pid, pidfd));
                Ok(())
            }
        }
    }

    /// This process's children that are no part of a cell.
    fn own_children(&self) -> Vec<libc::pid_t> {
        let putting = self.putting.iter().map(|(pid, _)| *pid);
        self.cells.values().map(|started| started.pid).chain(putting).collect()
    }

    fn reap(&mut self, cell: u64, socket: BorrowedFd<'_>) -> Result<()> {
        let Some(started) = self.cells.remove(&cell) else { return Ok(()) };
        let reaped = process::wait(started.pid)?;
        started.end_the_rest(&self.own_children());
        drop((started.reserved, started.private, started.outside));
        let ended = Answer::Ended { cell, exit: reaped.exit, cpu_us: reaped.cpu_us };
        self.told.retain(CellCgroup::is_there);
        self.told.extend(started.cgroup);
        send(socket, &ended, &[])
    }

    /// The supervisor is gone: nothing may be left of its cells.
    fn end_all(&mut self) {
        for (_, pidfd) in &self.putting {
            let _gone = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).is_err();
        }
        for started in self.cells.values() {
            // Init ends what the kernel does not end with it.
            let signal = if started.ends_with_init { libc::SIGKILL } else { libc::SIGTERM };
            let _gone = process::pidfd_send_signal(started.pidfd.as_fd(), signal).is_err();
        }
        while let Some((_, started)) = self.cells.pop_first() {
            self.end(started);
        }
        for cgroup in self.told.drain(..) {
            cgroup.remove();
        }
    }

    /// Ends a cell of which nobody will hear, and leaves nothing of it.
    fn end(&self, started: Started) {
        let _gone = started.end().is_err();
        let _reaped = process::wait(started.pid).is_ok();
        started.end_the_rest(&self.own_children());
        if let Some(cgroup) = started.cgroup {
            cgroup.remove();
        }
    }
}

/// What came with a message got lost, because this process has no room for more descriptors.
fn no_room(object: &str) -> LaunchError {
    LaunchError::new("clone", object, Errno(libc::EMFILE))
}

pub(super) fn read_plan(mut file: File) -> Result<Plan> {
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut bytes)?;
    Plan::read(&bytes).map_err(|_foreign| Errno(libc::EPROTO))
}

fn send(socket: BorrowedFd<'_>, answer: &Answer, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let bytes = serde_json::to_vec(answer).map_err(|_unprintable| Errno(libc::EPROTO))?;
    socket::send(socket, &bytes, descriptors)
}
