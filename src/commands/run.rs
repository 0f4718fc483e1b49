//! `toolcell run`: what a client launches in place of a server.
//!
//! Neighbours: starts the launcher, composes grants, opens the audit log, and hands over to `session`. Never: reads
//! stdin or writes stdout itself.

mod granting;
mod guarding;
mod hosted;
mod persist;
mod recording;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use granting::Granting;
use recording::Recording;

use super::compose::{self, DEFAULT_PROFILE, Surroundings};
use super::lock::found;
use super::{doors, install, secrets};
use crate::access::{FRONT_VARIABLE, Gate, Nonces, Now, TOKEN_VARIABLE};
use crate::audit::{self, Bounds, CallIds, Log, LogError};
use crate::cli::{ColorChoice, RunArgs, Server};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::guard::{self, Guard};
use crate::host::probe::clues::Clues;
use crate::launch::supervisor::Launcher;
use crate::launch::{launcher, own};
use crate::mcp::stdio;
use crate::policy::add::Additions;
use crate::policy::config;
use crate::policy::config::access::{Access, Mode};
use crate::policy::config::audit::Rotation;
use crate::policy::config::guard::Guarding;
use crate::policy::config::secrets::Secret;
use crate::policy::config::state::State;
use crate::policy::config::{Heeded, Results, Tool, Validate};
use crate::policy::files::{FilesError, Library};
use crate::session::{self, Options, Read};
use crate::store::runner;
use crate::sys::{descriptor, environment, identity, process};
use crate::text::escape;

/// Serves until the client closes its side.
pub(super) fn run(args: &RunArgs, color: ColorChoice) -> Result<Ending, Failure> {
    if let Server::Several { config, names } = &args.server {
        // Each of its children is told one name.
        return super::gather::run(args, config, names, color);
    }
    // The facts come first: in a delegated cgroup they move this process, and the launcher has to move with it.
    let mut facts = compose::facts();
    let handle = launcher::start().map_err(|errno| Failure::new(Ending::Cell, errno))?;
    // The launcher has no environment any more; from here on this process has no token in its own.
    let token = environment::take(TOKEN_VARIABLE);
    let front = environment::take(FRONT_VARIABLE);
    let fronted = front.is_some();
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(|errno| Failure::new(Ending::Cell, errno))?;
    let denials = facts.follow_denials().map_err(|untold| untold.to_string());
    let config = match &args.server {
        Server::Command(_) => None,
        Server::Configured { config, .. } | Server::Several { config, .. } => Some(config.as_path()),
    };
    let mut surroundings = Surroundings::of_process(config)?;
    let mut additions = compose::additions(&args.shared, &surroundings.world.cwd)?;
    let mut read = Read::none();
    // Before each is read.
    let lock_path = found::path(args.lock.as_ref(), &surroundings);
    let named = surroundings.library.config_file().map(|path| surroundings.world.cwd.join(path));
    named.into_iter().chain(lock_path).for_each(|path| read.look_at(path));
    let served = Served::find(args, &surroundings)?;
    for profile in served.profiles().into_iter().chain(served.guarding.tried()) {
        surroundings.profile_files(profile).into_iter().for_each(|path| read.look_at(path));
    }
    let gate = if args.lists_only { None } else { gate(&served, &surroundings, token)? };
    let gate = match front {
        Some(key) => gate.map(|gate| gate.behind(key)),
        None => gate,
    };
    let profiles = served.profiles().into_iter().map(|profile| surroundings.policy(profile, &additions));
    // What is typed adds no door to those of a tool that is tried.
    let tried = served.guarding.tried().map(|profile| surroundings.policy(profile, &Additions::default()));
    let of_doors = doors::credentials(&profiles.chain(tried).collect::<Result<Vec<_>, _>>()?);
    // A process of its own, so it has to be started while this one has no thread.
    let secrets = secrets::of_server(&served.name, &served.secrets, &of_doors, &mut surroundings)?;
    additions.env.extend(served.env.clone());
    let floor = surroundings.policy(&served.profile, &additions)?.floor;
    install::wanted(&served.command, floor, args.shared.audit.as_ref(), color)?;
    let runtime = surroundings.runtime(&served.command)?;
    let kept = served.persist.map(|quota| persist::prepare(&served.name, quota)).transpose()?;
    let (seen, persist) = kept.unzip();
    surroundings.persist = seen;
    let path = log_path(args.shared.audit.as_ref())?;
    let bounds = bounds(served.rotation);
    let log = Log::open_within(&path, identity::effective().0, bounds).map_err(log_failed)?;
    for remark in log.remarks() {
        diag::warn(color, remark, None);
    }
    let key = super::audit::signing_key(color)?;
    let kept = log.files();
    let logs = (path.as_path(), kept.as_slice());
    let (lock, lock_file) = found::lock(args, &surroundings, &served, &additions, &runtime, logs)?.unzip();
    let log_files = kept.iter().map(|path| ("the audit log", path.as_path()));
    let own: Vec<(&str, &Path)> =
        log_files.chain(lock_file.as_deref().map(|path| ("the lock file", path))).collect();
    let mut policies = BTreeMap::new();
    for profile in served.profiles() {
        let policy = surroundings.policy_without(profile, &additions, &own)?;
        policies.insert(profile.to_owned(), Arc::new(policy));
    }
    if let Some(policy) = policies.get(&served.profile).filter(|_| served.state == Some(State::Session))
        && policy.filesystem.writes.is_reviewed()
    {
        let told = format!(
            "what calls write cannot be reviewed in the cell of a session: profile `{}`",
            policy.name
        );
        let hint =
            "write `state = \"call\"`, or a profile with `writes = \"direct\"` or `\"discard\"`".to_owned();
        return Err(Failure::new(Ending::Configuration, told).hint(Some(hint)));
    }
    let less = guarding::less(&served, &surroundings, &additions, &own, &policies)?;
    hosted::keep(&served, fronted, &policies, &less)?;
    // Under one of these each call runs.
    let all = || policies.values().chain(less.values()).map(|policy| &**policy);
    Library::keep_sockets(all()).map_err(files_failed)?;
    for policy in all() {
        let needed = || runtime.view.iter().map(|needed| needed.path.as_path());
        if served.access.mode == Mode::Signed {
            surroundings.library.keep_keys(policy, needed()).map_err(files_failed)?;
        }
        guarding::keep(&served.guarding, &surroundings.library, policy, needed())?;
        doors::keep(&of_doors, &surroundings.library, policy, needed())?;
        for (name, secret) in &served.secrets {
            for file in secrets::files(&secret.from) {
                surroundings.library.keep_secret(policy, needed(), (name, &file)).map_err(files_failed)?;
            }
        }
    }
    let duty = guarding::duty(&served, &surroundings.library, &path, key.clone(), bounds)?;
    let tokens_file = surroundings.library.tokens_file();
    surroundings.run_beside(all());
    // Only a profile that accepts to do without asks for it; now, because it takes a process with one thread.
    if all().any(|policy| policy.floor.is_bare()) {
        facts.try_namespaces();
    }
    let program = runtime.files();
    let profiles = Granting {
        surroundings,
        runtime,
        facts,
        served,
        policies,
        less,
        made: RefCell::default(),
        waiting: RefCell::default(),
    };
    // What cannot work is refused now, not at the first call.
    let mut plans = Vec::new();
    for profile in profiles.policies.keys() {
        let (grant, remarks) = profiles.resolve(profile, false)?;
        plans.push(grant.plan);
        for remark in remarks {
            diag::warn(color, &remark, None);
        }
        if profiles.served.guarding.quarantine.is_some() {
            plans.push(profiles.resolve(profile, true)?.0.plan);
        }
    }
    let jobs = compose::jobs(args.jobs.as_ref())?;
    let spares = compose::spares(args.spares.as_ref(), jobs)?;
    let spares_memory = compose::spares_memory(args.spares_memory.as_ref())?;
    let spares_idle = compose::spares_idle(args.spares_idle.as_ref())?;
    // For hints to come, before they can no longer be read.
    Clues::of_process();
    // While this process has one thread.
    let all = profiles.policies.values().chain(profiles.less.values()).map(|policy| &**policy);
    let porter = doors::porter(&profiles.surroundings.library, all)?;
    let guard = guard::start(duty).map_err(|errno| Failure::new(Ending::Cell, errno))?;
    let unusual = std::path::absolute(&path).ok();
    let unusual = unusual.filter(|path| super::audit::default_log().map_or(true, |usual| usual != *path));
    let ids = CallIds::new(SystemTime::now(), process::pid());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Ending::Cell, error))?;
    let served = runtime.block_on(async {
        let launcher =
            Launcher::new(handle, denials, porter).map_err(|errno| Failure::new(Ending::Cell, errno))?;
        launcher.write_to(&kept);
        // From here on strangers' bytes are read.
        own::confine_supervisor(plans.iter().map(|plan| &**plan)).map_err(|error| {
            let hint = error.hint();
            Failure::new(Ending::Cell, error).hint(hint)
        })?;
        drop(plans);
        let notice = move |text: &str| diag::warn(color, &escape(text), None);
        let guard = Guard::new(guard, notice).map_err(|errno| Failure::new(Ending::Cell, errno))?;
        let files = guard.files();
        let log = log.reopening(move || files.log());
        let gate = gate.map(|gate| match &tokens_file {
            Some(path) => {
                let files = guard.files();
                gate.rereading(path.clone(), move || files.tokens())
            }
            None => gate,
        });
        let options = Options {
            server: profiles.served.name.clone(),
            user: format!("uid {}", identity::effective().0),
            run: ids.prefix().to_owned(),
            jobs,
            spares,
            spares_memory,
            spares_idle,
            program,
            read,
            launcher,
            profiles: Box::new(profiles),
            gate,
            guard: guard.clone(),
            lock,
            lists_only: args.lists_only,
            fronted,
            persist,
            secrets,
            records: Box::new(
                Recording::new(log, key, guard.clone(), color)
                    .map_err(|error| Failure::new(Ending::Audit, error))?,
            ),
            log: unusual,
            note: Box::new(move |text| diag::note(color, text)),
            notice: Box::new(move |text| diag::warn(color, text, None)),
        };
        // The client made this pipe and may know nothing of large results. One that cannot grow, or is none, stays.
        let _as_it_is = descriptor::widen_pipe(io::stdout().as_fd(), ANSWER_PIPE).is_err();
        let stdin = stdio::stdin().map_err(|error| Failure::new(Ending::Other, error))?;
        let stdout = stdio::stdout().map_err(|error| Failure::new(Ending::Other, error))?;
        let served = session::serve(options, stdin, stdout).await;
        guard.finish().await;
        served.map_err(|error| Failure::new(Ending::Other, error))
    });
    // A thread that still reads a client's terminal must not keep the process.
    runtime.shutdown_background();
    served.map(|()| Ending::Success)
}

/// The server to run and the profiles of its tools.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    profile: String,
    tools: BTreeMap<String, Tool>,
    pub(super) env: Vec<(String, Option<String>)>,
    validate: Option<Validate>,
    results: Option<Results>,
    heeded: Heeded,
    state: Option<State>,
    idle: Option<Duration>,
    access: Access,
    pub(super) guarding: Guarding,
    pub(super) lock: config::Lock,
    secrets: BTreeMap<String, Secret>,
    persist: Option<u64>,
    rotation: Rotation,
    /// By a file, and not by what was typed.
    configured: bool,
}

/// What stands before the server. The token is compared with the known ones, and forgotten.
fn gate(
    served: &Served,
    surroundings: &Surroundings,
    token: Option<Vec<u8>>,
) -> Result<Option<Gate>, Failure> {
    let tokens = match served.access.mode {
        Mode::None => Vec::new(),
        Mode::Token | Mode::Signed => surroundings.library.tokens().map_err(files_failed)?,
    };
    let gate = Gate::new(&served.name, &served.access, tokens, token.as_deref());
    if let Some(token) = token {
        environment::forget(token);
    }
    let nonces = surroundings.library.nonces_file().filter(|_| served.access.mode == Mode::Signed);
    let (gate, path) = match (gate, nonces) {
        (Some(gate), Some(path)) => (gate, path),
        (gate, _) => return Ok(gate),
    };
    let nonces = Nonces::open(&path, identity::effective().0, served.access.window(), Now::of_clocks().date)
        .map_err(|error| Failure::new(Ending::Configuration, error))?;
    Ok(Some(gate.remembering(nonces)))
}

pub(super) fn files_failed(error: FilesError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Configuration, error).hint(hint)
}

fn of_options(args: &RunArgs) -> Option<Validate> {
    args.no_validate.then_some(Validate::Off)
}

impl Served {
    pub(super) fn find(args: &RunArgs, surroundings: &Surroundings) -> Result<Self, Failure> {
        let typed = args.shared.profile.as_ref().map(|typed| typed.text.clone());
        let name = match &args.server {
            Server::Command(command) => return Self::command(command, typed, args),
            Server::Configured { name, .. } => name,
            Server::Several { names, .. } => &names.first().cloned(),
        };
        let config = surroundings.library.config().map_err(files_failed)?;
        let name = match name {
            Some(name) => name.clone(),
            None => only(&config)?,
        };
        let server = config.server(&name).map_err(|hint| {
            Failure::new(Ending::Configuration, format!("the configuration has no server `{name}`"))
                .hint(Some(hint))
        })?;
        Ok(Self {
            name,
            command: server.command.clone(),
            profile: typed.unwrap_or_else(|| server.profile_for(None).to_owned()),
            tools: server.tools.clone(),
            env: server.env.clone(),
            validate: server.validate.filter(|_| !args.no_validate).or(of_options(args)),
            results: server.results,
            heeded: server.heeded,
            state: server.state,
            idle: server.idle,
            access: config.access.clone(),
            guarding: config.guarding.clone(),
            lock: config.lock,
            persist: server.persist,
            rotation: config.audit,
            configured: true,
            secrets: config.secrets,
        })
    }

    fn command(command: &[OsString], profile: Option<String>, args: &RunArgs) -> Result<Self, Failure> {
        let command = compose::texts(command)?;
        let program = command.first().map(PathBuf::from).unwrap_or_default();
        let package = runner::asked(&command).and_then(Result::ok).map(|asked| asked.package.main.name);
        let name = package.as_deref().map_or_else(|| program.file_name(), |name| Path::new(name).file_name());
        Ok(Self {
            name: name.unwrap_or_default().to_string_lossy().into_owned(),
            command,
            profile: profile.unwrap_or_else(|| DEFAULT_PROFILE.to_owned()),
            tools: BTreeMap::new(),
            env: Vec::new(),
            validate: of_options(args),
            results: None,
            heeded: Heeded::default(),
            state: args.state,
            idle: None,
            access: Access::default(),
            guarding: Guarding::default(),
            lock: config::Lock::IfThere,
            secrets: BTreeMap::new(),
            persist: None,
            rotation: Rotation::default(),
            configured: false,
        })
    }

    /// How long the processes live, by the configuration: the server's, and those of tools that differ; nothing where all live for
    /// one call.
    pub(super) fn states(&self) -> Vec<String> {
        let own = self.state.unwrap_or_default();
        let tools = self.tools.iter().filter_map(|(name, tool)| Some((name, tool.state?)));
        let tools =
            tools.filter(|(_, state)| *state != own).map(|(name, state)| format!("{name}: {}", state.name()));
        let all: Vec<String> = [own.name().to_owned()].into_iter().chain(tools).collect();
        // What was typed is no configuration.
        if !self.configured || all == [State::Call.name()] { Vec::new() } else { all }
    }

    /// A tool that is not named falls under the server's profile.
    fn profile_for(&self, method: &str, target: Option<&str>) -> &str {
        self.tool(method, target).and_then(|tool| tool.profile.as_ref()).unwrap_or(&self.profile)
    }

    fn tool(&self, method: &str, target: Option<&str>) -> Option<&Tool> {
        self.tools.get(target.filter(|_| method == "tools/call")?)
    }

    pub(super) fn profiles(&self) -> Vec<&str> {
        let own = self.tools.values().filter_map(|tool| tool.profile.as_deref());
        let mut profiles: Vec<&str> = own.chain([self.profile.as_str()]).collect();
        profiles.sort_unstable();
        profiles.dedup();
        profiles
    }
}

/// The server of a configuration that has one.
fn only(config: &config::Config) -> Result<String, Failure> {
    let names: Vec<&str> = config.servers.keys().map(String::as_str).collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        names => Err(Failure::new(
            Ending::Usage,
            format!("the configuration has {} servers, and none is named", names.len()),
        )
        .hint(Some(format!("name one of: {}", names.join(", "))))),
    }
}

/// When the log becomes an earlier file.
fn bounds(said: Rotation) -> Bounds {
    let usual = Bounds::default();
    Bounds { size: said.size.unwrap_or(usual.size), age: said.age.unwrap_or(usual.age) }
}

fn log_failed(error: LogError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Audit, error).hint(hint)
}

/// Where the log that was named is, else the one in the user's state directory.
pub(super) fn log_path(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.clone());
    }
    let path = super::audit::default_log()
        .map_err(|failure| failure.hint(Some("name one with `--audit FILE`".to_owned())))?;
    audit::make_directory_for(&path).map_err(super::audit::file_failed)?;
    Ok(path)
}

/// Bytes in the pipe to the client, at least: as many as in the one from a payload.
const ANSWER_PIPE: libc::c_int = 256 * 1024;
