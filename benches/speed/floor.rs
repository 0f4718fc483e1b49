//! Launches in process, against the C program that makes the same system calls.
//!
//! Neighbours: `benches/floor.c` runs the script that [`script`] writes. Never: measures the making of a plan.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use toolcell::host::runtime::{self, World};
use toolcell::host::{Facts, view};
use toolcell::launch::spawn::{self, Prepared, Started};
use toolcell::launch::{REPORT_LIMIT, Report};
use toolcell::plan::build::{Request, build};
use toolcell::plan::step::{Access, Kind, LandlockRule, Namespace, Resource, Step};
use toolcell::plan::{Plan, seccomp};
use toolcell::policy::add::Additions;
use toolcell::policy::files::Library;
use toolcell::policy::profile;
use toolcell::sys::landlock::access;
use toolcell::sys::mount::attr;
use toolcell::sys::process::{self, Exit};
use toolcell::sys::{descriptor, identity, socket};

use crate::measure::{self, Result, Row, turns};

/// The plan of the default profile for a static program that ends at once.
fn plan(nothing: &Path) -> Result<Plan> {
    let world = World::of_process()?;
    let library = Library::new(identity::effective().0, None, None);
    let workspace = profile::World { home: world.home.as_deref(), workspace: &world.cwd };
    let policy = library.load("default", workspace, &seccomp::named, &Additions::default())?;
    let found = runtime::find(&[nothing.display().to_string()], &world)?;
    let granted = view::of_policy(&world.files, &policy.filesystem, view::Around::default())?;
    let needed = view::of_runtime(&world.files, &found.view)?;
    Ok(build(&Request {
        policy: &policy,
        facts: &Facts::gather(),
        view: &granted,
        runtime: &needed,
        hidden: &[],
        links: &found.links,
        program: &found.program,
        argv: &found.argv,
        path: &found.path,
        runtime_environment: &found.environment,
        environment: &BTreeMap::new(),
        persist: None,
        six: false,
        cwd: Path::new("/tmp"),
    })?)
}

/// One launch, from the pipes to the last trace of the cell.
fn launch(prepared: &Prepared, number: u64) -> Result<Duration> {
    let start = Instant::now();
    let (stdin, into) = descriptor::pipe()?;
    let (out, stdout) = descriptor::pipe()?;
    let (err, stderr) = descriptor::pipe()?;
    let started = spawn::spawn(prepared, spawn::Stdio { stdin, stdout, stderr }, number)?;
    drop(into);
    let Started { pid, pidfd, channel, cgroup, .. } = started;
    let mut buffer = vec![0; REPORT_LIMIT];
    let mut failed = None;
    while let Ok(Some((count, _scratch))) = socket::receive_what_fits(channel.as_fd(), &mut buffer) {
        let message = buffer.get(..count).unwrap_or_default();
        if let Report::Failed(error) = serde_json::from_slice(message)? {
            failed = Some(error);
        }
    }
    let reaped = process::wait(pid)?;
    drop((channel, out, err, pidfd));
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    let time = start.elapsed();
    match failed {
        Some(error) => Err(error.into()),
        None if reaped.exit == Exit::Code(0) => Ok(time),
        None => Err(format!("the cell ended with {:?}", reaped.exit).into()),
    }
}

const fn attributes(access: Access, devices: bool) -> u64 {
    attr::NOSUID
        | if devices { 0 } else { attr::NODEV }
        | if access.write { 0 } else { attr::RDONLY }
        | if access.execute { 0 } else { attr::NOEXEC }
}

fn rights(abi: u32, rule: &LandlockRule) -> u64 {
    let mut rights = access::READ_FILE | access::READ_DIR;
    if rule.access.execute {
        rights |= access::EXECUTE;
    }
    if rule.access.write {
        rights |= access::handled(abi) & !access::EXECUTE & !(1 << 6 | 1 << 11 | 1 << 15);
    }
    if rule.kind == Kind::File {
        rights &= access::OF_FILES;
    }
    rights
}

const fn namespace(namespace: Namespace) -> i32 {
    match namespace {
        Namespace::User => libc::CLONE_NEWUSER,
        Namespace::Mount => libc::CLONE_NEWNS,
        Namespace::Pid => libc::CLONE_NEWPID,
        Namespace::Net => libc::CLONE_NEWNET,
        Namespace::Ipc => libc::CLONE_NEWIPC,
        Namespace::Uts => libc::CLONE_NEWUTS,
        Namespace::Cgroup => libc::CLONE_NEWCGROUP,
        Namespace::Time => libc::CLONE_NEWTIME,
    }
}

const fn resource(resource: Resource) -> u32 {
    match resource {
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Stack => libc::RLIMIT_STACK,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
    }
}

/// The plan as lines of fields, numbers and flags worked out, so that C has nothing to do but to call.
fn script(plan: &Plan) -> Result<String> {
    let mut text = String::new();
    let mut unified = false;
    for step in &plan.steps {
        let name = step.name();
        match step {
            Step::CreateCgroup { directories, unified: one } => {
                unified = *one;
                if !one {
                    writeln!(text, "{name}")?;
                }
                for directory in directories {
                    writeln!(text, "cgroup\t{}", directory.parent.display())?;
                    for setting in &directory.settings {
                        writeln!(text, "cgroup-setting\t{}\t{}", setting.file, setting.value)?;
                    }
                }
            }
            Step::Clone { namespaces } => {
                let flags = namespaces.iter().fold(0, |flags, one| flags | namespace(*one));
                writeln!(text, "clone\t{flags}\t{}", if unified { "unified" } else { "each" })?;
            }
            Step::MapIds { inside, outside_uid, outside_gid } => {
                writeln!(text, "{name}\t{inside}\t{outside_uid}\t{outside_gid}")?;
            }
            Step::MakeDirectory { path, mode } => writeln!(text, "{name}\t{}\t{mode}", path.display())?,
            Step::MakeFile { path, content, mode } => {
                writeln!(text, "{name}\t{}\t{mode}\t{}", path.display(), content.len())?;
            }
            Step::MakeSymlink { path, target } => {
                writeln!(text, "{name}\t{}\t{}", path.display(), target.display())?;
            }
            Step::Bind { source, target, kind, access, devices, owner: None } => {
                let (source, target) = (source.display(), target.display());
                let directory = if *kind == Kind::Directory { libc::O_DIRECTORY } else { 0 };
                let attributes = attributes(*access, *devices);
                writeln!(text, "{name}\t{source}\t{target}\t{directory}\t{attributes}")?;
            }
            Step::Hide { path, .. } => {
                let nothing = attributes(Access::default(), false);
                writeln!(text, "{name}\t{}\t{nothing}", path.display())?;
            }
            Step::MountScratch { path, size, inodes, execute } => {
                let attributes = attributes(Access { write: true, execute: *execute, names: false }, false);
                writeln!(text, "{name}\t{}\t{size}\t{inodes}\t{attributes}", path.display())?;
            }
            Step::SetHostname { name: host } => writeln!(text, "{name}\t{host}")?,
            Step::SetRlimit { resource: which, value } => {
                writeln!(text, "{name}\t{}\t{value}", resource(*which))?;
            }
            Step::SetIds { uid, gid } => writeln!(text, "{name}\t{uid}\t{gid}")?,
            Step::UnshareUser { inside } => writeln!(text, "{name}\t{inside}")?,
            Step::Landlock { abi, rules, .. } => {
                let (net, scoped) = (if *abi >= 4 { 3 } else { 0 }, if *abi >= 6 { 3 } else { 0 });
                let size = if *abi >= 6 {
                    24
                } else if *abi >= 4 {
                    16
                } else {
                    8
                };
                writeln!(text, "{name}\t{}\t{net}\t{scoped}\t{size}", access::handled(*abi))?;
                for rule in rules {
                    writeln!(text, "landlock-rule\t{}\t{}", rule.path.display(), rights(*abi, rule))?;
                }
                writeln!(text, "landlock-restrict")?;
            }
            Step::Seccomp { program, .. } => {
                for (code, jt, jf, k) in program {
                    writeln!(text, "filter\t{code}\t{jt}\t{jf}\t{k}")?;
                }
                writeln!(text, "{name}")?;
            }
            Step::Exec { program, env, cwd, .. } => {
                writeln!(text, "argv\t{}", program.display())?;
                for (key, value) in env {
                    writeln!(text, "env\t{key}={value}")?;
                }
                writeln!(text, "{name}\t{}", cwd.display())?;
            }
            Step::ReserveName { .. } | Step::Bind { owner: Some(_), .. } => {
                return Err(format!("the C program does not know the step `{name}`").into());
            }
            _ => writeln!(text, "{name}")?,
        }
    }
    Ok(text)
}

/// The C program, which launches once for each byte that it reads.
pub(crate) struct Floor {
    go: ChildStdin,
    times: BufReader<ChildStdout>,
}

impl Floor {
    fn start(program: &Path, script: &Path) -> Result<Self> {
        let mut child =
            Command::new(program).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (go, times) = (child.stdin.take(), child.stdout.take());
        Ok(Self { go: go.ok_or("no stdin")?, times: BufReader::new(times.ok_or("no stdout")?) })
    }

    /// One for a program that ends at once.
    pub(crate) fn of(files: &Path) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("toolcell-floor-{}", process::pid()));
        fs::write(&path, script(&plan(&files.join("nothing"))?)?)?;
        let mut floor = Self::start(&files.join("floor"), &path)?;
        // When it has launched once, it has read its script.
        let turned = floor.turn();
        fs::remove_file(&path)?;
        turned.map(|_time| floor)
    }

    pub(crate) fn turn(&mut self) -> Result<Duration> {
        self.go.write_all(b".")?;
        let mut line = String::new();
        self.times.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse().map_err(|_not_a_number| "the C program ended")?))
    }
}

/// What a process costs that is not isolated at all.
fn bare(nothing: &Path) -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new(nothing).status()?;
    if status.success() { Ok(start.elapsed()) } else { Err("the payload failed".into()) }
}

pub(crate) fn rows(files: &Path, rounds: usize) -> Result<Vec<Row>> {
    let nothing = files.join("nothing");
    let plan = plan(&nothing)?;
    let mut floor = Floor::of(files)?;
    let prepared = Prepared::new(plan)?;
    let mut number = 0;
    let mut ours = || {
        number += 1;
        launch(&prepared, number)
    };
    let [ours, floor, bare] = turns(rounds, [&mut ours, &mut || floor.turn(), &mut || bare(&nothing)])?;
    Ok(vec![
        measure::ratio("launch to exit of a static program against C", &ours, &floor, Some(1.2)),
        measure::ratio("the same against a bare fork and exec", &ours, &bare, None),
    ])
}
