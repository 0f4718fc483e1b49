//! `toolcell run`: what a client launches in place of a server.
//!
//! Neighbours: starts the launcher, composes grants, opens the audit log, and hands over to `session`. Never: reads
//! stdin or writes stdout itself.

mod guarding;
mod persist;
mod recording;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use recording::Recording;
use serde_json::Value;

use super::compose::{self, DEFAULT_PROFILE, Surroundings};
use super::lock::found;
use super::{install, secrets};
use crate::access::{FRONT_VARIABLE, Gate, Nonces, Now, TOKEN_VARIABLE};
use crate::arguments::Fault;
use crate::audit::{self, CallIds, Log, LogError};
use crate::cli::{ColorChoice, RunArgs, Server};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::guard::{self, Guard};
use crate::host::Facts;
use crate::host::bounded::bounded;
use crate::host::narrow::{Unfit, narrowed};
use crate::host::probe::clues::Clues;
use crate::host::runtime::Runtime;
use crate::host::view::View;
use crate::launch::supervisor::Launcher;
use crate::launch::{launcher, own};
use crate::mcp::stdio;
use crate::network::porter::Porter;
use crate::outcome::Granted;
use crate::policy::bounds::Bounds;
use crate::policy::config::access::{Access, Mode};
use crate::policy::config::grants::{ArgumentGrant, Use};
use crate::policy::config::guard::Guarding;
use crate::policy::config::secrets::Secret;
use crate::policy::config::state::{IDLE, State};
use crate::policy::config::{Heeded, Results, Tool, Validate};
use crate::policy::files::FilesError;
use crate::policy::{Floor, Policy, config};
use crate::session::{self, Grant, NoGrant, Options, Profiles};
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
    let served = Served::find(args, &surroundings)?;
    let gate = if args.lists_only { None } else { gate(&served, &surroundings, token)? };
    let gate = match front {
        Some(key) => gate.map(|gate| gate.behind(key)),
        None => gate,
    };
    // A process of its own, so it has to be started while this one has no thread.
    let secrets = secrets::of_server(&served.name, &served.secrets, &mut surroundings)?;
    additions.env.extend(served.env.clone());
    let floor = surroundings.policy(&served.profile, &additions)?.floor;
    install::wanted(&served.command, floor, color)?;
    let runtime = surroundings.runtime(&served.command)?;
    let kept = served.persist.map(|quota| persist::prepare(&served.name, quota)).transpose()?;
    let (seen, persist) = kept.unzip();
    surroundings.persist = seen;
    let path = log_path(args.shared.audit.as_ref())?;
    let log = Log::open(&path, identity::effective().0).map_err(log_failed)?;
    for remark in log.remarks() {
        diag::warn(color, remark, None);
    }
    let key = super::audit::signing_key(color)?;
    let kept = log.files();
    let (lock, lock_file) = found::lock(args, &surroundings, &served, &additions, &runtime, &kept)?.unzip();
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
    // Under one of these each call runs.
    let all = || policies.values().chain(less.values()).map(|policy| &**policy);
    for policy in all() {
        let needed = || runtime.view.iter().map(|needed| needed.path.as_path());
        if served.access.mode == Mode::Signed {
            surroundings.library.keep_keys(policy, needed()).map_err(files_failed)?;
        }
        guarding::keep(&served.guarding, &surroundings.library, policy, needed())?;
        for (name, secret) in &served.secrets {
            for file in secrets::files(&secret.from) {
                surroundings.library.keep_secret(policy, needed(), (name, &file)).map_err(files_failed)?;
            }
        }
    }
    let duty = guarding::duty(&served, &surroundings.library, &path, key.clone())?;
    let tokens_file = surroundings.library.tokens_file();
    surroundings.run_beside(all());
    // Only a profile that accepts to do without asks for it; now, because it takes a process with one thread.
    if all().any(|policy| policy.floor == Floor::Landlock) {
        facts.try_namespaces();
    }
    let program = runtime.files();
    let profiles =
        Granting { surroundings, runtime, facts, served, policies, less, made: RefCell::default() };
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
    // For hints to come, before they can no longer be read.
    Clues::of_process();
    // While this process has one thread.
    let open = profiles.policies.values().any(|policy| policy.network.is_open());
    let porter = open.then(Porter::start).transpose();
    let porter = porter.map_err(|errno| Failure::new(Ending::Cell, errno))?;
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
            program,
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
    guarding: Guarding,
    pub(super) lock: config::Lock,
    secrets: BTreeMap<String, Secret>,
    persist: Option<u64>,
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
        })
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

/// Makes grants, and keeps each as long as the host looks the same to it. Profiles are read once, at the start.
struct Granting {
    surroundings: Surroundings,
    runtime: Runtime,
    facts: Facts,
    served: Served,
    policies: BTreeMap<String, Arc<Policy>>,
    /// The same for calls that are tried.
    less: BTreeMap<String, Arc<Policy>>,
    made: RefCell<BTreeMap<(String, bool), (View, Grant)>>,
}

impl Granting {
    fn policy(&self, profile: &str, less: bool) -> Result<&Arc<Policy>, Failure> {
        let policies = if less { &self.less } else { &self.policies };
        policies.get(profile).ok_or_else(|| {
            Failure::new(Ending::Configuration, format!("profile `{profile}` was not read at the start"))
        })
    }

    fn resolve(&self, profile: &str, less: bool) -> Result<(Grant, Vec<String>), Failure> {
        let policy = self.policy(profile, less)?;
        let composed = self.surroundings.plan(policy, &self.runtime, &self.facts)?;
        let grant = Grant {
            plan: Arc::new(composed.plan),
            policy: Arc::clone(policy),
            once: false,
            granted: Vec::new(),
        };
        self.made.borrow_mut().insert((profile.to_owned(), less), (composed.view, grant.clone()));
        Ok((grant, composed.remarks))
    }
}

impl Granting {
    /// The view of a policy.
    fn view(&self, policy: &Policy) -> Result<View, NoGrant> {
        self.surroundings.view(policy).map_err(|error| {
            let hint = error.hint();
            NoGrant::Host(Failure::new(Ending::Configuration, error).hint(hint).render(false))
        })
    }

    /// The grant of a call whose arguments or client say what it sees. `None`: they say nothing of the profile's.
    fn of_call(
        &self,
        (profile, less): (&str, bool),
        tool: Option<&Tool>,
        params: Option<&[u8]>,
        bounds: &[Bounds],
    ) -> Result<Option<Grant>, NoGrant> {
        let of_host = |failure: Failure| NoGrant::Host(failure.render(false));
        let policy = self.policy(profile, less).map_err(of_host)?;
        let files = &self.surroundings.world.files;
        let mut left = Policy::clone(policy);
        for bounds in bounds {
            left = bounded(files, &left, &self.view(&left)?, bounds);
        }
        let granted = match tool {
            None if left == **policy => return Ok(None),
            None => Vec::new(),
            Some(tool) => {
                let (narrowed, granted) = self.of_arguments((policy, less), &left, tool, params)?;
                left = narrowed;
                granted
            }
        };
        let composed = self.surroundings.plan(&left, &self.runtime, &self.facts).map_err(of_host)?;
        let granted = all_granted(&left, granted);
        Ok(Some(Grant { plan: Arc::new(composed.plan), policy: Arc::new(left), once: true, granted }))
    }

    /// What the arguments of a call leave of a policy, of which its client has left a part.
    fn of_arguments(
        &self,
        (whole, less): (&Policy, bool),
        left: &Policy,
        tool: &Tool,
        params: Option<&[u8]>,
    ) -> Result<(Policy, Vec<Granted>), NoGrant> {
        let params = params.map(serde_json::from_slice::<Value>).transpose();
        let params =
            params.map_err(|error| NoGrant::Arguments(format!("the arguments cannot be read: {error}")))?;
        let arguments = params.as_ref().and_then(|params| params.get("arguments")).unwrap_or(&Value::Null);
        let mut grants = Cow::Borrowed(tool.grants.as_slice());
        // A call that is tried with nothing to be written sees what it would write to: else it would never be let through.
        if less && whole.filesystem.write.is_empty() {
            let written = |grant: &&mut ArgumentGrant| grant.access == Use::Write;
            grants.to_mut().iter_mut().filter(written).for_each(|grant| grant.access = Use::Read);
        }
        let apply = |policy: &Policy| {
            let view = self.view(policy)?;
            Ok(narrowed(&self.surroundings.world.files, policy, &view, &grants, arguments))
        };
        let refused = |error: Unfit, hint: Option<String>| {
            NoGrant::Arguments(Failure::new(Ending::Configuration, error).hint(hint).render(false))
        };
        apply(left)?.map_err(|error| {
            // Where the profile would have granted it, nothing in the profile is the reason.
            let by_client = left != whole && matches!(apply(whole), Ok(Ok(_)));
            let tried = less && matches!(error, Unfit::NotGranted { .. });
            let hint = match (by_client, tried) {
                (true, _) => Some(BY_CLIENT.to_owned()),
                (false, true) => Some(TRIED.to_owned()),
                (false, false) => error.hint(),
            };
            refused(error, hint)
        })
    }
}

/// Whoever reads the profile would find nothing that stands against it.
const TRIED: &str = "the tool was refused too much and is tried with less than its profile allows: see `toolcell quarantine list`";

/// Why a path is not granted that the profile grants.
const BY_CLIENT: &str =
    "the profile grants it; the client's roots, or the policy that it sends, leave it out";

/// All that a policy grants, what arguments grant of it first.
fn all_granted(policy: &Policy, by_arguments: Vec<Granted>) -> Vec<Granted> {
    let filesystem = &policy.filesystem;
    let mut granted = by_arguments;
    let lists = [
        ("read", &filesystem.read),
        ("write", &filesystem.write),
        ("execute", &filesystem.execute),
        ("list", &filesystem.list),
    ];
    for (access, rules) in lists {
        for rule in rules {
            let path = rule.path.to_string_lossy().into_owned();
            if !granted.iter().any(|known| (known.access.as_str(), &known.path) == (access, &path)) {
                granted.push(Granted { access: access.to_owned(), path, by: None });
            }
        }
    }
    granted
}

impl Profiles for Granting {
    fn check(&self, tool: &str, arguments: &Value) -> Vec<Fault> {
        let Some(rules) = self.served.tools.get(tool).and_then(|tool| tool.arguments.as_ref()) else {
            return Vec::new();
        };
        self.surroundings.world.files.forget();
        rules.faults(arguments, &self.surroundings.world.files)
    }

    fn validates(&self, tool: &str) -> bool {
        let own = self.served.tools.get(tool).and_then(|tool| tool.validate);
        own.or(self.served.validate) != Some(Validate::Off)
    }

    fn results(&self, tool: &str) -> Results {
        let own = self.served.tools.get(tool).and_then(|tool| tool.results);
        own.or(self.served.results).unwrap_or_default()
    }

    fn heeded(&self) -> Heeded {
        self.served.heeded
    }

    fn state(&self, tool: Option<&str>) -> State {
        let own = tool.and_then(|tool| self.served.tools.get(tool)?.state);
        own.or(self.served.state).unwrap_or_default()
    }

    fn idle(&self) -> Duration {
        self.served.idle.unwrap_or(IDLE)
    }

    fn policy(&self, method: &str, target: Option<&str>) -> Option<Arc<Policy>> {
        self.policies.get(self.served.profile_for(method, target)).cloned()
    }

    fn grant(
        &self,
        method: &str,
        target: Option<&str>,
        params: Option<&[u8]>,
        bounds: &[Bounds],
        less: bool,
    ) -> Result<Grant, NoGrant> {
        let profile = self.served.profile_for(method, target);
        // A path that was made, removed or replaced since the last call changes the plan.
        self.surroundings.world.files.forget();
        let tool = self.served.tool(method, target).filter(|tool| !tool.grants.is_empty());
        if (tool.is_some() || !bounds.is_empty())
            && let Some(grant) = self.of_call((profile, less), tool, params, bounds)?
        {
            return Ok(grant);
        }
        let as_before = |(view, grant): &&(View, Grant)| {
            self.surroundings.view(&grant.policy).is_ok_and(|now| now == *view)
        };
        let key = (profile.to_owned(), less);
        let kept = self.made.borrow().get(&key).filter(as_before).map(|(_, grant)| grant.clone());
        match kept {
            Some(grant) => Ok(grant),
            None => match self.resolve(profile, less) {
                Ok((grant, _)) => Ok(grant),
                Err(failure) => Err(NoGrant::Host(failure.render(false))),
            },
        }
    }
}

fn log_failed(error: LogError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Audit, error).hint(hint)
}

/// Where the log that was named is, else the one in the user's state directory.
fn log_path(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
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
