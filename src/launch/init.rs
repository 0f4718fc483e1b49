//! Pid 1 of a cell: runs every step of the plan after the clone, starts the payload, reaps, reports, ends.
//!
//! Neighbours: `launch::spawn` clones into [`main`]; `root`, `confine` and `verify` hold the steps. Never: returns, reads
//! anything from the payload, or runs a step that is not in the plan.
//!
//! ```text
//! building ──a step fails──► Failed, exit(1)
//!    │ all steps done
//!  Ready ──held: the channel ends, or SIGTERM──► exit(143)
//!    │ not held, or told to go on
//!  starting ──exec fails──► Failed, exit(127)
//!    │ exec done
//! reaping ──payload ends──► Exited, exit(its status); the kernel kills what is left in the pid namespace
//!    └──────SIGTERM────────► kill all, reap all (so that their CPU time is counted), exit(143)
//! ```
//!
//! Without a pid namespace init kills what is left itself: what it can signal is, by Landlock, the cell.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::confine::Alone;
use super::handover::{self, Given};
use super::root::Root;
use super::spawn::{Prepared, Stdio};
use super::{LaunchError, Report, confine, doors, early, hint, overlay, private, root, verify};
use crate::outcome::Receipt;
use crate::plan::step::{self, Observe, Step};
use crate::sys::descriptor::{self, Interest};
use crate::sys::process::{self, Exit};
use crate::sys::{Errno, filter, own_text, socket};

/// Descriptor numbers of init after `CloseDescriptors`; the payload inherits 0 to 2 only.
const CHANNEL: i32 = 3;
const PROC: i32 = 4;
const LAUNCHER: i32 = 5;
const SCRATCH: i32 = 6;

/// What steps hand to later ones.
#[derive(Debug)]
pub(super) struct State<'p> {
    pub(super) prepared: &'p Prepared,
    /// The cell's, as far as it is known yet.
    pub(super) name: String,
    stdio: Option<Stdio>,
    pub(super) channel: OwnedFd,
    /// The launcher's pidfd under its number after `CloseDescriptors`.
    launcher: Option<OwnedFd>,
    /// The host's `/proc`, for the files that only it has; closed before the payload starts.
    pub(super) proc: Option<OwnedFd>,
    joins: Vec<OwnedFd>,
    /// What listens on the host, in the order of the policy.
    pub(super) outside: Vec<OwnedFd>,
    pub(super) root: Option<Root>,
    pub(super) scratch: Option<OwnedFd>,
    /// What takes what is written to overlays, while they are made.
    pub(super) changes: Option<overlay::Changes>,
    /// And how often Landlock has refused something to init.
    pub(super) receipt: Option<(Receipt, u32)>,
    /// What Landlock answered when it was there.
    pub(super) held: Option<verify::Held>,
    /// What somebody is told of.
    pub(super) observed: Option<Observe>,
    /// The signals that may be ignored, of which the payload gets the default back.
    ignored: u64,
    /// The cell's directory on the host, without a private root.
    pub(super) private: Option<&'p Path>,
    /// Without a pid namespace.
    pub(super) alone: Option<Alone>,
}

impl State<'_> {
    /// Where a path of the plan is: without a private root, `/tmp` is a directory on the host.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        match self.private {
            Some(directory) if path == Path::new(step::SCRATCH) => private::scratch(directory),
            _ => path.to_owned(),
        }
    }
}

impl<'p> State<'p> {
    fn new(prepared: &'p Prepared, name: &str, channel: OwnedFd) -> Self {
        Self {
            prepared,
            name: name.to_owned(),
            stdio: None,
            channel,
            launcher: None,
            proc: None,
            joins: Vec::new(),
            outside: Vec::new(),
            root: None,
            scratch: None,
            changes: None,
            receipt: None,
            held: None,
            observed: None,
            ignored: u64::MAX,
            private: None,
            alone: None,
        }
    }
}

/// Dropped only by an unwinding panic, which must not run on into a copy of the parent's stack.
struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        process::exit_now(1);
    }
}

/// Never returns: the child of the clone lives and ends here.
pub(super) fn main(
    prepared: &Prepared,
    (stdio, outside): (Stdio, Vec<OwnedFd>),
    channel: OwnedFd,
    name: &str,
    private: Option<&Path>,
    hold: bool,
) -> ! {
    let _guard = ExitOnUnwind;
    let mut state = State::new(prepared, name, channel);
    (state.stdio, state.outside, state.private) = (Some(stdio), outside, private);
    let first =
        prepared.plan.steps.iter().position(|step| matches!(step, Step::Clone { .. })).map_or(0, |at| at + 1);
    let built = begin(&mut state).and_then(|()| run_from(first, &mut state)).and_then(|()| match hold {
        // What cannot be seen to be covered now could not be when the cell goes on.
        true => verify::covers(&prepared.plan.steps),
        false => Ok(()),
    });
    end(built, state, hold)
}

/// Never returns, like [`main`]: runs what there is of the plan, then waits for the whole of it.
pub(super) fn wait_for_plan(mut ground: Prepared, channel: OwnedFd, namespaces: u64) -> ! {
    let _guard = ExitOnUnwind;
    let mut state = State::new(&ground, "", channel);
    let settled =
        early::settle(namespaces).map_err(|errno| LaunchError::new("clone", "new namespaces", errno));
    if let Err(error) = settled.and_then(|()| begin(&mut state)).and_then(|()| run_from(1, &mut state)) {
        report(&state.channel, &Report::Failed(error), None);
        process::exit_now(1);
    }
    let State { channel, proc, root, .. } = state;
    let done = ground.plan.steps.len();
    let received = early::receive(&channel).map_err(|errno| LaunchError::new("clone", "plan", errno));
    let ordered = received.and_then(|order| {
        // Nobody is left to tell, or to build for.
        let Some((rest, idmaps, stdio)) = order else { process::exit_now(1) };
        ground.complete(rest, idmaps).map(|()| stdio)
    });
    let stdio = match ordered {
        Ok(stdio) => stdio,
        Err(error) => {
            report(&channel, &Report::Failed(error), None);
            process::exit_now(1)
        }
    };
    let mut state = State::new(&ground, "", channel);
    (state.stdio, state.proc, state.root) = (Some(stdio), proc, root);
    let built = run_from(done, &mut state);
    end(built, state, false)
}

fn end(built: Result<(), LaunchError>, mut state: State<'_>, hold: bool) -> ! {
    let status = match built {
        Ok(()) => run_payload(&mut state, hold),
        Err(error) => {
            report(&state.channel, &Report::Failed(error), None);
            1
        }
    };
    process::exit_now(status)
}

/// Before any step.
fn begin(state: &mut State<'_>) -> Result<(), LaunchError> {
    process::set_name(c"toolcell-init");
    process::wipe_environment();
    // Until there is a payload: a user's own files in /proc/self are his only while the process is dumpable.
    let dumpable = process::prctl(libc::PR_SET_DUMPABLE, 1);
    dumpable
        .and_then(|_| tie_to_launcher(state))
        .map_err(|errno| LaunchError::new("clone", "init", errno))?;
    state.proc =
        Some(root::open_directory(Path::new("/proc")).map_err(|e| LaunchError::new("clone", "/proc", e))?);
    Ok(())
}

fn run_from(first: usize, state: &mut State<'_>) -> Result<(), LaunchError> {
    for step in state.prepared.plan.steps.iter().skip(first) {
        run(step, state)?;
    }
    Ok(())
}

/// Killed with the launcher from here on; and dead already if the launcher died before that took effect.
pub(super) fn tie_to_launcher(state: &State<'_>) -> Result<(), Errno> {
    match &state.launcher {
        Some(launcher) => tie_to(launcher.as_fd()),
        None => tie_to(state.prepared.launcher()?.as_fd()),
    }
}

/// The same for any child of a process, by a descriptor of that process.
pub(super) fn tie_to(parent: BorrowedFd<'_>) -> Result<(), Errno> {
    process::die_with_parent()?;
    let mut interest = [Interest { fd: Some(parent), events: libc::POLLIN, ready: 0 }];
    descriptor::poll(&mut interest, Some(Duration::ZERO))?;
    match interest.map(|i| i.ready) {
        [0] => Ok(()),
        [libc::POLLIN] => process::exit_now(1),
        // Not a pidfd of a process that lives or has ended: nothing can be said about the parent.
        _ => Err(Errno(libc::EBADF)),
    }
}

/// One step. Each arm names what the step is about, for the error.
fn run(step: &Step, state: &mut State<'_>) -> Result<(), LaunchError> {
    let name = step.name();
    let fail = |object: &str| {
        let object = object.to_owned();
        move |errno| LaunchError::new(name, object, errno)
    };
    match step {
        Step::ReserveName { .. }
        | Step::ListenOutside { .. }
        | Step::MakePrivateDirectory { .. }
        | Step::Clone { .. }
        | Step::CreateCgroup { unified: true, .. } => {
            Err(fail("a step of the launcher")(Errno(libc::EINVAL)))
        }
        // The launcher has made it meanwhile, or has ended this process.
        Step::CreateCgroup { directories, unified: false } => {
            know_origin(state).map_err(fail("what the launcher is"))?;
            let mut name = [0; libc::NAME_MAX as usize];
            let received = socket::receive_what_fits(state.channel.as_fd(), &mut name);
            let (length, joins) =
                received.and_then(|got| got.ok_or(Errno(libc::EPIPE))).map_err(fail("its name"))?;
            state.name = String::from_utf8_lossy(name.get(..length).unwrap_or_default()).into_owned();
            // A hierarchy whose descriptor got lost would be one that is not joined.
            if joins.len() != directories.len() {
                return Err(fail(&state.name)(Errno(libc::EMFILE)));
            }
            state.joins = joins;
            Ok(())
        }
        Step::JoinCgroup { namespace } => {
            confine::join_cgroup(&state.name, &std::mem::take(&mut state.joins), *namespace)
                .map_err(fail(&state.name))
        }
        Step::MapIds { inside, outside_uid, outside_gid } => {
            confine::map_ids(state, *inside, *outside_uid, *outside_gid).map_err(fail(&format!("{inside}")))
        }
        Step::IsolateMounts
        | Step::MountRoot
        | Step::MakeDirectory { .. }
        | Step::MakeFile { .. }
        | Step::RewriteFile { .. }
        | Step::MakeSymlink { .. }
        | Step::MakeSocket { .. }
        | Step::Bind { .. }
        | Step::MountChanges { .. }
        | Step::MountOverlay { .. }
        | Step::DetachChanges { .. }
        | Step::OpenPlaces { .. }
        | Step::Hide { .. }
        | Step::MountScratch { .. }
        | Step::MountProc
        | Step::PivotRoot => root::run(step, state),
        Step::OpenDoors { doors } => doors::open(doors, state),
        Step::LoopbackUp => crate::sys::network::loopback_up().map_err(fail("lo")),
        Step::SetHostname { name: host } => process::sethostname(host).map_err(fail(host)),
        Step::SetRlimit { resource, value } => {
            process::setrlimit(confine::resource(*resource), *value).map_err(fail(&format!("{resource:?}")))
        }
        Step::NewSession => confine::new_session().map_err(fail("session")),
        Step::CloseDescriptors => close_descriptors(state).map_err(fail("descriptors")),
        Step::SetIds { uid, gid } => confine::set_ids(state, *uid, *gid).map_err(fail(&format!("{uid}"))),
        Step::UnshareUser { inside } => {
            confine::unshare_user(state, *inside).map_err(fail(&format!("{inside}")))
        }
        Step::ForbidUserNamespaces => {
            confine::forbid_user_namespaces(state).map_err(fail("/proc/sys/user/max_user_namespaces"))
        }
        Step::DropCapabilities { bounding } => {
            confine::drop_capabilities(*bounding).map_err(fail("capability sets"))
        }
        Step::NoNewPrivileges => {
            process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop).map_err(fail("no_new_privs"))
        }
        Step::HoldProcesses => {
            state.alone = Some(Alone::new(state).map_err(fail("init"))?);
            Ok(())
        }
        Step::Landlock { abi, rules, logged, ports } => {
            let abstract_socket =
                verify::before_landlock(ports.as_ref()).map_err(fail("a socket to look for"))?;
            confine::landlock(*abi, (rules, ports.as_ref()), *logged, state)?;
            state.held = verify::behind_landlock(state, abstract_socket)?;
            Ok(())
        }
        Step::Seccomp { observe, .. } => seccomp(state, *observe).map_err(fail("filter")),
        Step::Verify { layers } => {
            know_origin(state).map_err(fail("what the launcher is"))?;
            state.proc = None;
            state.launcher = None;
            let seen = verify::run(layers, state)?;
            (state.receipt, state.ignored) = (Some((seen.receipt, seen.denials)), seen.ignored);
            Ok(())
        }
        Step::Exec { cwd, .. } => {
            enter(&state.place(cwd)).map_err(fail(&format!("{}{}", hint::WORKING_DIRECTORY, cwd.display())))
        }
    }
}

/// An init that was made early is told only now, before anything else that comes over the channel.
fn know_origin(state: &State<'_>) -> Result<(), Errno> {
    match state.prepared.origin() {
        Ok(_) => Ok(()),
        Err(_) => early::receive_origin(&state.channel).map(|origin| state.prepared.learn(origin)),
    }
}

/// A host where a listener stands above this process already, as in some containers, gets the filter that answers by
/// itself: it refuses the same, and the receipt says that this layer is blind.
fn seccomp(state: &mut State<'_>, observe: Option<Observe>) -> Result<(), Errno> {
    if !state.prepared.observing.is_empty()
        && let Ok(listener) = filter::install_observing(&state.prepared.observing)
    {
        // Before any call that might be refused: init itself would wait for the answer.
        tell(&state.channel, &Report::Listener, Some(&listener))?;
        state.observed = observe;
        return Ok(());
    }
    filter::install(&state.prepared.filter)
}

fn enter(cwd: &Path) -> Result<(), Errno> {
    process::umask(0o022);
    process::chdir(&root::text(cwd)?)
}

/// 0, 1, 2 are the three pipes, 3 the channel, 4 and 5 the host's `/proc` and the launcher until `Verify`, 6 the
/// scratch directory until it has been handed over; nothing else stays open.
fn close_descriptors(state: &mut State<'_>) -> Result<(), Errno> {
    let missing = Errno(libc::EBADF);
    // All moved above the numbers that are about to be taken, so that no copy lands on one still needed.
    let keep = |fd: &OwnedFd| descriptor::duplicate_above(fd.as_fd(), 16);
    let stdio = state.stdio.take().ok_or(missing)?;
    let (stdin, stdout, stderr) = (keep(&stdio.stdin)?, keep(&stdio.stdout)?, keep(&stdio.stderr)?);
    drop(stdio);
    let channel = keep(&state.channel)?;
    let proc = keep(state.proc.as_ref().ok_or(missing)?)?;
    let launcher = keep(state.prepared.launcher()?)?;
    let scratch = state.scratch.as_ref().map(keep).transpose()?;
    let places = [
        (Some(stdin), 0, false),
        (Some(stdout), 1, false),
        (Some(stderr), 2, false),
        (Some(channel), CHANNEL, true),
        (Some(proc), PROC, true),
        (Some(launcher), LAUNCHER, true),
        (scratch, SCRATCH, true),
    ];
    // What these numbers, and those that close_range takes away, stood for must not be closed once more by its owner.
    state.root = None;
    let kept_scratch = state.scratch.take().map(disown).is_some();
    disown(std::mem::replace(&mut state.channel, descriptor::adopt(CHANNEL)));
    if let Some(old) = state.proc.replace(descriptor::adopt(PROC)) {
        disown(old);
    }
    state.launcher = Some(descriptor::adopt(LAUNCHER));
    for (copy, number, close_on_exec) in places {
        if let Some(copy) = copy {
            descriptor::duplicate_to(copy.as_fd(), number, close_on_exec)?;
            disown(copy);
        }
    }
    state.scratch = kept_scratch.then(|| descriptor::adopt(SCRATCH));
    descriptor::close_from(if kept_scratch { SCRATCH + 1 } else { SCRATCH })
}

/// Gives up ownership of a number that `close_range` is about to close, or that has been adopted under another owner.
fn disown(fd: OwnedFd) {
    let _number: i32 = std::os::fd::IntoRawFd::into_raw_fd(fd);
}

/// Tells the supervisor. It may be gone: then the launcher is too, and the death signal is on its way.
fn report(channel: &OwnedFd, report: &Report, descriptor: Option<&OwnedFd>) {
    let _gone = tell(channel, report, descriptor).is_err();
}

pub(super) fn tell(channel: &OwnedFd, report: &Report, descriptor: Option<&OwnedFd>) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(report).map_err(|_unprintable| Errno(libc::EPROTO))?;
    let descriptors: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
    socket::send(channel.as_fd(), &bytes, &descriptors)
}

/// Starts the payload and waits for it; the result is init's own exit status. The state is borrowed, because to drop it
/// would come between the payload's end and the cell's.
fn run_payload(state: &mut State<'_>, hold: bool) -> i32 {
    let channel = state.channel.as_raw_fd();
    debug_assert_eq!(channel, CHANNEL, "the payload closes the channel by its close-on-exec flag");
    // Outside of a pid namespace "all others" would be the host, but for Landlock's scope, which was verified.
    let all_mine = process::pid() == 1 || state.alone.is_some();
    // The payload gets the default back: its signals are all reset before exec.
    let handled = process::notice_termination(all_mine);
    if hold {
        process::set_name(c"toolcell-ready");
    }
    if let Some((receipt, denials)) = state.receipt.take() {
        // No program runs in a cell of which nobody knows what it is. The filter of a policy may refuse the telling.
        if tell(&state.channel, &Report::Ready { receipt, denials }, state.scratch.as_ref()).is_err() {
            return 1;
        }
    }
    state.scratch = None;
    let mut given = Given::default();
    if hold {
        match handover::receive(state.channel.as_fd()) {
            Ok(received) => given = received,
            Err(errno) => {
                let Some(error) = handover::failure(errno) else {
                    // There is nothing of a payload to be counted yet.
                    return 128 + libc::SIGTERM;
                };
                report(&state.channel, &Report::Failed(error), None);
                return 1;
            }
        }
        process::set_name(c"toolcell-init");
        // The host may have taken a cover away by what it did to the covered name meanwhile.
        if let Err(error) = verify::covers(&state.prepared.plan.steps) {
            report(&state.channel, &Report::Failed(error), None);
            return 1;
        }
    }
    if let Err(error) = given.write_files(&state.prepared.plan.steps) {
        report(&state.channel, &Report::Failed(error), None);
        return 1;
    }
    let with_secrets = match given.variables.is_empty() {
        true => Ok(None),
        false => confine::image(state, &given.variables),
    };
    drop(given);
    let own = state.alone.as_ref().and_then(|own| own.image.as_ref());
    let image = with_secrets.as_ref().map_err(|errno| *errno).and_then(|image| {
        image.as_ref().or(own).or(state.prepared.image.as_ref()).ok_or(Errno(libc::EINVAL))
    });
    let scope = state.alone.as_ref().map(|own| own.scope.as_fd());
    let payload = match handled
        .and(image)
        .and_then(|image| process::spawn(image, scope, state.ignored, state.prepared.untold))
    {
        Ok(pid) => pid,
        Err(errno) => {
            let object = state.prepared.plan.steps.iter().find_map(|step| match step {
                Step::Exec { program, .. } => Some(program.to_string_lossy().into_owned()),
                _ => None,
            });
            report(
                &state.channel,
                &Report::Failed(LaunchError::new("exec", object.unwrap_or_default(), errno)),
                None,
            );
            return 127;
        }
    };
    // The payload has its own copy.
    drop(with_secrets);
    // The payload holds its own copies; a pipe must end when the payload's side does.
    if descriptor::close_standard().is_err() {
        return 1;
    }
    if state.prepared.may_let_go {
        own_text::let_go();
    }
    loop {
        match process::wait_unless_terminated() {
            Ok(Some(reaped)) if reaped.pid == payload => {
                let ended = Report::Exited { exit: reaped.exit, alone: process::is_alone() };
                report(&state.channel, &ended, None);
                if state.alone.is_some() {
                    end_all(all_mine);
                }
                return match reaped.exit {
                    Exit::Code(code) => code,
                    Exit::Signal(signal) => 128 + signal,
                };
            }
            Ok(Some(_)) => {}
            Ok(None) => return end_all(all_mine),
            Err(_) => return 1,
        }
    }
}

/// What the kernel kills with init is never waited for, and its CPU time is lost; so it is killed before.
fn end_all(all_mine: bool) -> i32 {
    if all_mine {
        let _none_left = process::kill_all_others().is_err();
        while process::wait(-1).is_ok() {}
    }
    128 + libc::SIGTERM
}
