//! From what was typed to a plan: options, profile, what the host has, what the program needs.
//!
//! Neighbours: `exec`, `run` and `profile explain` compose through here, so that all three see the same plan.
//! Never: starts anything, prints.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsString};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::installed;
use crate::access::{FRONT_VARIABLE, TOKEN_VARIABLE};
use crate::cli::{SharedArgs, Typed};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::probe::clues::Clues;
use crate::host::probe::{Failed, Part, causes};
use crate::host::runtime::{self, NotFound, Runtime, World, unseen_arguments};
use crate::host::view::{self, Around, Seen, View};
use crate::host::{Facts, cgroups};
use crate::launch::{cgroup, private};
use crate::outcome::Limit;
use crate::plan::build::{Request, build};
use crate::plan::{Plan, Refusal, seccomp};
use crate::policy::add::{Additions, parse_env};
use crate::policy::files::{Library, Listed, user_directory};
use crate::policy::listen::Listen;
use crate::policy::network::Destination;
use crate::policy::units::{parse_duration, parse_size};
use crate::policy::{PathRule, Policy, Source, limits, profile};
use crate::session::MOST_SPARES;
use crate::store::Store;
use crate::sys::{Errno, environment, identity, landlock};

/// What servers may hold that wait for a call.
const SPARES_MEMORY: u64 = 1 << 30;
/// How long one waits,
const SPARES_IDLE: Duration = Duration::from_secs(10 * 60);
/// and may.
const SPARES_IDLES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
/// The profile of a command or server for which none was named.
pub(super) const DEFAULT_PROFILE: &str = "default";

/// The surroundings that a policy and a program are resolved in.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) world: World,
    pub(super) library: Library,
    environment: BTreeMap<String, String>,
    /// What the cells of every profile that is in use may write to.
    written: Vec<PathBuf>,
    /// What the server keeps from call to call.
    pub(super) persist: Option<Seen>,
    /// What was installed, if there is a place for it.
    pub(super) store: Option<Store>,
}

impl Surroundings {
    /// Of this process, with the profiles near a configuration file.
    pub(super) fn of_process(config: Option<&Path>) -> Result<Self, Failure> {
        let world = World::of_process().map_err(|error| {
            Failure::new(Ending::Other, error).hint(Some("change to a directory that exists".to_owned()))
        })?;
        let xdg = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let user = user_directory(xdg.as_deref(), world.home.as_deref());
        let library = Library::new(identity::effective().0, config, user.as_deref());
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            // What a client calls toolcell with is not for a cell, whatever lets it through.
            .filter(|(name, _)| {
                ![TOKEN_VARIABLE, FRONT_VARIABLE].map(CStr::to_bytes).contains(&name.as_bytes())
            })
            .collect();
        let store = installed::store();
        Ok(Self { world, library, environment, written: Vec::new(), persist: None, store })
    }

    /// Of the host alone: built-in profiles, no environment, `/` as the working directory.
    pub(super) fn of_host() -> Result<Self, Failure> {
        let own = World::of_process().map_err(|error| Failure::new(Ending::Other, error))?;
        let world = World { home: None, cwd: PathBuf::from("/"), ..own };
        Ok(Self {
            world,
            library: Library::new(identity::effective().0, None, None),
            environment: BTreeMap::new(),
            written: Vec::new(),
            persist: None,
            store: None,
        })
    }

    /// Takes a variable out of what profiles can let through.
    pub(super) fn forget_variable(&mut self, name: &str) {
        if let Some(value) = self.environment.remove(name) {
            environment::forget(value.into_bytes());
        }
    }

    fn policy_world(&self) -> profile::World<'_> {
        profile::World { home: self.world.home.as_deref(), workspace: &self.world.cwd }
    }

    /// The policy of a profile, by name or file, with options added.
    pub(super) fn policy(&self, profile: &str, additions: &Additions) -> Result<Policy, Failure> {
        self.library.load(profile, self.policy_world(), &seccomp::named, additions).map_err(|error| {
            let hint = error.hint();
            Failure::new(Ending::Configuration, error).hint(hint)
        })
    }

    /// The files of a profile, by name or file, and of those that it extends, as far as there are any.
    pub(super) fn profile_files(&self, profile: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut next = self.library.pick(profile).ok();
        while let Some(Source { path: Some(path), text, .. }) = next
            && !files.contains(&path)
        {
            // What is wrong with it is told when it is resolved.
            let table = DeTable::parse(&text).ok();
            let parent = table.as_ref().and_then(|table| table.get_ref().get("extends")?.get_ref().as_str());
            next = parent.and_then(|parent| self.library.find(parent).ok());
            files.push(path);
        }
        files
    }

    /// Other policies under which cells will run, beside the one that a plan is made for.
    pub(super) fn run_beside<'p>(&mut self, policies: impl Iterator<Item = &'p Policy>) {
        let rules = policies.flat_map(|policy| &policy.filesystem.write);
        self.written = rules.map(|rule| rule.path.clone()).collect();
    }

    /// What a policy's paths are on the host.
    pub(super) fn view(&self, policy: &Policy) -> Result<View, view::Unusable> {
        let around = Around { home: self.world.home.as_deref(), written: &self.written };
        view::of_policy(&self.world.files, &policy.filesystem, around)
    }

    /// Every profile there is.
    pub(super) fn profiles(&self) -> Vec<Listed> {
        self.library.list(self.policy_world(), &seccomp::named)
    }

    /// What a command needs to start. A runner of packages stands for the program that is installed.
    pub(super) fn runtime(&self, command: &[String]) -> Result<Runtime, Failure> {
        let (command, variable) = installed::instead(self.store.as_ref(), command)?;
        let mut found = runtime::find(&command, &self.world).map_err(|error| {
            let ending = match &error {
                NotFound::Missing { .. } => Ending::NotFound,
                NotFound::NotExecutable { .. } | NotFound::Unsuitable { .. } => Ending::NotExecutable,
            };
            let hint = error.hint();
            Failure::new(ending, error).hint(hint)
        })?;
        found.environment.extend(variable);
        Ok(found)
    }

    /// The policy of a profile, in which the tool cannot reach the files that toolcell itself writes: those that are named,
    /// and all that is its own.
    pub(super) fn policy_without(
        &self,
        profile: &str,
        additions: &Additions,
        own: &[(&str, &Path)],
    ) -> Result<Policy, Failure> {
        let mut policy = self.policy(profile, additions)?;
        for (origin, path) in own {
            // The files exist by now, so the real path is what a grant could show.
            let path = std::fs::canonicalize(path).map_err(|error| Failure::new(Ending::Audit, error))?;
            policy.filesystem.deny.push(PathRule {
                path,
                why: "a record must not be read or changed by what it is about".to_owned(),
                origin: (*origin).to_owned(),
                optional: true,
            });
        }
        let state = super::audit::state_directory().map(|directory| {
            (directory, "records and the key that signs them are not for what they are about")
        });
        let store = self.store.as_ref().map(|store| store.root().to_path_buf());
        let store = store.filter(|store| changes(&policy, store).is_some());
        let store = store.map(|store| (store, "what servers are started from is not theirs to change"));
        // What this process cannot reach, its cells cannot; what does not exist yet, a tool must not make.
        let reachable = |path: &PathBuf| match std::fs::symlink_metadata(path) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        for (directory, why) in [state, store].into_iter().flatten().filter(|(path, _)| reachable(path)) {
            for path in BTreeSet::from([as_it_is(&directory), directory]) {
                policy.filesystem.deny.push(PathRule {
                    path,
                    why: why.to_owned(),
                    origin: "what is toolcell's own".to_owned(),
                    optional: false,
                });
            }
        }
        Ok(policy)
    }

    /// The plan for a program under a policy, and remarks about what its arguments name and the cell lacks.
    pub(super) fn plan(
        &self,
        policy: &Policy,
        runtime: &Runtime,
        facts: &Facts,
    ) -> Result<Composed, Failure> {
        self.keep_store(policy, runtime)?;
        let unusable = |error: view::Unusable| {
            let hint = error.hint();
            Failure::new(Ending::Configuration, error).hint(hint)
        };
        let files = &self.world.files;
        let granted = self.view(policy).map_err(unusable)?;
        let needed = view::of_runtime(files, &runtime.view).map_err(unusable)?;
        let hidden = view::of_runtime(files, &runtime.hide).map_err(unusable)?;
        let cwd = self.working_directory(policy, runtime, &needed, &granted);
        let request = Request {
            policy,
            facts,
            view: &granted,
            runtime: &needed,
            hidden: &hidden,
            links: &runtime.links,
            program: &runtime.program,
            argv: &runtime.argv,
            path: &runtime.path,
            runtime_environment: &runtime.environment,
            environment: &self.environment,
            cwd: &cwd,
            persist: self.persist.as_ref(),
            six: policy.network.is_open() && has_six(),
        };
        let plan = build(&request).map_err(refused)?;
        let visible: Vec<PathBuf> =
            needed.iter().chain(&granted.granted).map(|seen| seen.target.clone()).collect();
        let mut remarks = runtime.hints.clone();
        remarks.extend(unseen_arguments(&runtime.argv, &visible, &self.world));
        Ok(Composed { plan, remarks, view: granted })
    }

    /// A program of the store runs only where its cell cannot change it.
    fn keep_store(&self, policy: &Policy, runtime: &Runtime) -> Result<(), Failure> {
        let stored = self.store.as_ref().map(Store::root).filter(|root| runtime.program.starts_with(root));
        let Some(grant) = stored.and_then(|root| changes(policy, root)) else { return Ok(()) };
        let told =
            format!("`{}` can be written, and what toolcell has installed lies in it", grant.display());
        let hint =
            "grant directories within it, or keep the store elsewhere: name a directory in `XDG_DATA_HOME`";
        Err(Failure::new(Ending::Configuration, told).hint(Some(hint.to_owned())))
    }

    fn working_directory(
        &self,
        policy: &Policy,
        runtime: &Runtime,
        needed: &[Seen],
        granted: &View,
    ) -> PathBuf {
        let shown = view::shows_directory(&self.world.cwd, needed.iter().chain(&granted.granted));
        match &runtime.cwd {
            _ if shown => self.world.cwd.clone(),
            Some(wanted) => wanted.clone(),
            None if policy.filesystem.scratch > 0 => PathBuf::from(crate::plan::step::SCRATCH),
            None => PathBuf::from("/"),
        }
    }
}

/// The grant under which a tool could change a directory of toolcell's own.
fn changes<'p>(policy: &'p Policy, directory: &Path) -> Option<&'p Path> {
    let directory = as_it_is(directory);
    let mut grants = policy.filesystem.write.iter().map(|rule| rule.path.as_path());
    grants.find(|grant| {
        let grant = as_it_is(grant);
        directory.starts_with(&grant) || grant.starts_with(&directory)
    })
}

/// Has an interface of this host an address of IPv6? Then a cell's loopback has one too.
fn has_six() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty())
}

/// The path with the links resolved in as much of it as exists.
fn as_it_is(path: &Path) -> PathBuf {
    let real = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
    match real {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(path)).components().collect(),
        None => path.to_owned(),
    }
}

/// A plan and what a person should know about it.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) plan: Plan,
    pub(super) remarks: Vec<String>,
    /// What the policy's paths were when the plan was made.
    pub(super) view: View,
}

/// What is told of a policy that no plan can be made of.
pub(super) fn refused(error: Refusal) -> Failure {
    let ending = match &error {
        Refusal::Floor { .. }
        | Refusal::NoLandlock
        | Refusal::OldLandlock { .. }
        | Refusal::HostNetwork { .. }
        | Refusal::OldScope { .. }
        | Refusal::NeedsRoot { .. }
        | Refusal::NoOverlay { .. }
        | Refusal::NoPersist { .. }
        | Refusal::NoDoors { .. }
        | Refusal::NoListen { .. }
        | Refusal::OldPorts { .. }
        | Refusal::NoIpv6 { .. }
        | Refusal::Unprotected { .. } => Ending::Floor,
        Refusal::Syscall(_)
        | Refusal::GrantedAndDenied { .. }
        | Refusal::FileDirect { .. }
        | Refusal::LargeDoors { .. }
        | Refusal::TooManyDoors { .. } => Ending::Configuration,
    };
    if let (Refusal::NoLandlock, Err(errno)) = (&error, landlock::version()) {
        let failed = Failed::new("landlock_create_ruleset", "version", errno);
        let hint = causes::explain(Part::Landlock, &failed, &Clues::read()).sentence();
        return Failure::new(ending, NoLandlock { refusal: error, errno }).hint(Some(hint));
    }
    let hint = error.hint();
    Failure::new(ending, error).hint(hint)
}

/// The host's facts, after what killed supervisors have left is removed.
pub(super) fn facts() -> Facts {
    let facts = Facts::gather();
    sweep(&facts);
    facts
}

/// Removes what killed supervisors have left.
pub(super) fn sweep(facts: &Facts) {
    for parent in facts.cgroup.iter().flat_map(cgroups::parents) {
        cgroup::sweep(&parent);
    }
    private::sweep(&facts.temporary);
}

/// The plan only knows that there is none.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}: landlock_create_ruleset")]
struct NoLandlock {
    refusal: Refusal,
    #[source]
    errno: Errno,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot use the value `{text}` of `{option}`")]
struct BadValue {
    option: &'static str,
    text: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn bad(
    typed: &Typed,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    hint: Option<String>,
) -> Failure {
    let failed = BadValue { option: typed.option, text: typed.text.clone(), source: error.into() };
    Failure::new(Ending::Usage, failed).hint(hint)
}

/// The options that add to a profile; relative paths are the caller's, so they count from its working directory.
pub(super) fn additions(shared: &SharedArgs, cwd: &Path) -> Result<Additions, Failure> {
    let amount = |typed: &Option<Typed>, limit: Limit| -> Result<Option<u64>, Failure> {
        let Some(typed) = typed else { return Ok(None) };
        limits::parse(limit, &typed.text).map(Some).map_err(|error| {
            let hint = error.hint().or_else(|| Some(format!("write {}", limits::example(limit))));
            bad(typed, error, hint)
        })
    };
    let absolute = |paths: &[PathBuf]| paths.iter().map(|path| cwd.join(path)).collect();
    let count = |amount: Option<u64>| amount.map(|amount| u32::try_from(amount).unwrap_or(u32::MAX));
    let mut env = Vec::new();
    for typed in &shared.env {
        env.push(parse_env(&typed.text).map_err(|error| bad(typed, error, None))?);
    }
    let mut net = Vec::new();
    for typed in &shared.net {
        let parsed: Result<Destination, _> = typed.text.parse();
        net.push(parsed.map_err(|error| {
            let hint = error.hint();
            bad(typed, error, hint)
        })?);
    }
    let mut listen = Vec::new();
    for typed in &shared.listen {
        let parsed: Result<Listen, _> = typed.text.parse();
        listen.push(parsed.map_err(|error| {
            let hint = error.hint();
            bad(typed, error, Some(hint))
        })?);
    }
    Ok(Additions {
        read: absolute(&shared.read),
        write: absolute(&shared.write),
        env,
        memory: amount(&shared.memory, Limit::Memory)?,
        cpu: count(amount(&shared.cpu, Limit::Cpu)?),
        tasks: count(amount(&shared.tasks, Limit::Tasks)?),
        time: amount(&shared.timeout, Limit::Time)?.map(Duration::from_micros),
        scratch: amount(&shared.scratch, Limit::Scratch)?,
        floor: shared.floor,
        writes: shared.writes,
        net,
        listen,
    })
}

/// A command line as text; the records and the protocol are UTF-8.
pub(super) fn texts(command: &[OsString]) -> Result<Vec<String>, Failure> {
    command
        .iter()
        .map(|argument| {
            argument.to_str().map(str::to_owned).ok_or_else(|| {
                let shown = argument.to_string_lossy();
                Failure::new(Ending::Usage, format!("the argument `{shown}` is not valid UTF-8"))
            })
        })
        .collect()
}

/// The number of a `--spares`; without one, as many as calls run side by side.
pub(super) fn spares(typed: Option<&Typed>, jobs: usize) -> Result<usize, Failure> {
    let Some(typed) = typed else { return Ok(jobs.min(MOST_SPARES)) };
    match typed.text.parse() {
        Ok(spares @ 0..=MOST_SPARES) => Ok(spares),
        _ => {
            Err(Failure::new(Ending::Usage, format!("`{}` is not a value of `{}`", typed.text, typed.option))
                .hint(Some(format!("write a number from 0 to {MOST_SPARES}"))))
        }
    }
}

/// The bytes of a `--spares-memory`.
pub(super) fn spares_memory(typed: Option<&Typed>) -> Result<u64, Failure> {
    typed.map_or(Ok(SPARES_MEMORY), |typed| {
        parse_size(&typed.text)
            .map_err(|error| bad(typed, error, Some("write a size, e.g. `512MiB`".to_owned())))
    })
}

/// The time of a `--spares-idle`.
pub(super) fn spares_idle(typed: Option<&Typed>) -> Result<Duration, Failure> {
    let Some(typed) = typed else { return Ok(SPARES_IDLE) };
    let hint = || Some("write a time from 1s to 7d".to_owned());
    let time = parse_duration(&typed.text).map_err(|error| bad(typed, error, hint()))?;
    if SPARES_IDLES.contains(&time) { Ok(time) } else { Err(bad(typed, "out of range", hint())) }
}

/// The number of a `--jobs`, and nothing else than a number of at least 1.
pub(super) fn jobs(typed: Option<&Typed>) -> Result<usize, Failure> {
    let Some(typed) = typed else {
        return Ok(std::thread::available_parallelism().map_or(1, usize::from));
    };
    match typed.text.parse() {
        Ok(jobs @ 1..=1024) => Ok(jobs),
        Ok(_) => Err(bad(typed, "out of range", Some("write a number from 1 to 1024".to_owned()))),
        Err(error) => {
            let error: std::num::ParseIntError = error;
            Err(bad(typed, error, Some("write a number from 1 to 1024".to_owned())))
        }
    }
}
