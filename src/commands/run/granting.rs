//! The grant of each call under `run`: its profile's plan, or one of its own where its arguments or its client narrow it.
//!
//! Neighbours: `run` resolves every profile through it at the start, `session` asks for each call. Never: reads a profile.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Served, Surroundings};
use crate::arguments::Fault;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::Facts;
use crate::host::bounded::bounded;
use crate::host::narrow::{Unfit, narrowed};
use crate::host::runtime::{Files, Runtime};
use crate::host::view::View;
use crate::launch::places::Ahead;
use crate::outcome::{Granted, Layer, Violation};
use crate::plan::Plan;
use crate::plan::places::{self, Place};
use crate::plan::step::Access;
use crate::policy::bounds::Bounds;
use crate::policy::config::grants::{ArgumentGrant, Use};
use crate::policy::config::state::{IDLE, State};
use crate::policy::config::{Heeded, Results, Tool, Validate};
use crate::policy::connect::connected;
use crate::policy::network::Network;
use crate::policy::{Observe, Policy};
use crate::session::{Grant, LISTS, NoGrant, Profiles, Waiting};

/// Makes grants, and keeps each as long as the host looks the same to it. Profiles are read once, at the start.
pub(super) struct Granting {
    pub(super) surroundings: Surroundings,
    pub(super) runtime: Runtime,
    pub(super) facts: Facts,
    pub(super) served: Served,
    pub(super) policies: BTreeMap<String, Arc<Policy>>,
    /// The same for calls that are tried.
    pub(super) less: BTreeMap<String, Arc<Policy>>,
    pub(super) made: RefCell<BTreeMap<(String, bool), (View, Grant)>>,
    /// By tool: the plan of cells that wait for its calls, whatever their arguments grant; none where it can have none.
    pub(super) waiting: RefCell<BTreeMap<String, Places>>,
}

/// How a profile looked when it was seen what can wait for calls of one of its tools.
pub(super) type Places = (Policy, View, Option<(Arc<Plan>, Arc<Policy>)>);

impl Granting {
    fn policy(&self, profile: &str, less: bool) -> Result<&Arc<Policy>, Failure> {
        let policies = if less { &self.less } else { &self.policies };
        policies.get(profile).ok_or_else(|| {
            Failure::new(Ending::Configuration, format!("profile `{profile}` was not read at the start"))
        })
    }

    /// The grant of a profile as the host is now, and remarks about it.
    pub(super) fn resolve(&self, profile: &str, less: bool) -> Result<(Grant, Vec<String>), Failure> {
        let policy = self.policy(profile, less)?;
        let composed = self.surroundings.plan(policy, &self.runtime, &self.facts)?;
        let grant = Grant {
            plan: Arc::new(composed.plan),
            policy: Arc::clone(policy),
            once: false,
            granted: Vec::new(),
            ahead: None,
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
        (name, tool): (Option<&str>, Option<&Tool>),
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
        let waiting = name.zip(tool).filter(|_| !less && bounds.is_empty());
        let ahead = waiting.and_then(|(name, tool)| {
            let (plan, policy) = self.waiting(name, policy, tool)?;
            let put = places::between(&plan, &composed.plan)?.into();
            Some(Waiting { ahead: Ahead { plan, put }, policy })
        });
        Ok(Some(Grant { plan: Arc::new(composed.plan), policy: Arc::new(left), once: true, granted, ahead }))
    }

    /// The plan of cells that can wait for calls of a tool, and its policy: what every call sees, and places for what its arguments grant.
    fn waiting(&self, name: &str, policy: &Arc<Policy>, tool: &Tool) -> Option<(Arc<Plan>, Arc<Policy>)> {
        let grants = &tool.grants.paths;
        // Doors are as the call names them; and which names a cell lacks is asked of the plan that it was built by.
        if grants.is_empty() || !tool.grants.connect.is_empty() || policy.observe != Observe::Calls {
            return None;
        }
        let files = &self.surroundings.world.files;
        let whole = self.surroundings.view(policy).ok()?;
        if let Some((_, seen, found)) = self.waiting.borrow().get(name).filter(|(of, ..)| *of == **policy)
            && *seen == whole
        {
            return found.clone();
        }
        let found = (|| {
            let (mut left, _) = narrowed(files, policy, &whole, grants, &Value::Null).ok()?;
            let largest =
                grants.iter().filter(|grant| grant.access == Use::Write).filter_map(|grant| grant.largest);
            left.limits.file_size = largest.fold(left.limits.file_size, u64::min);
            let composed = self.surroundings.plan(&left, &self.runtime, &self.facts).ok()?;
            let plan = places::with_places(composed.plan, of_grants(files, grants))?;
            // Tools that grant the same share the cells that wait.
            let waiting = self.waiting.borrow();
            let mut known = waiting.values().filter_map(|(.., found)| found.as_ref());
            let shared = known.find(|(of, by)| **of == plan && **by == left).cloned();
            Some(shared.unwrap_or_else(|| (Arc::new(plan), Arc::new(left))))
        })();
        let seen = (Policy::clone(policy), whole, found.clone());
        self.waiting.borrow_mut().insert(name.to_owned(), seen);
        found
    }

    /// The grant of who lists what there is to be called, and is called by nobody: the ports of its cell are left to the calls.
    fn of_lists(&self, profile: &str, less: bool) -> Result<Option<Grant>, NoGrant> {
        let of_host = |failure: Failure| NoGrant::Host(failure.render(false));
        let policy = self.policy(profile, less).map_err(of_host)?;
        if policy.network.listen.is_empty() {
            return Ok(None);
        }
        let mut left = Policy::clone(policy);
        left.network.listen.clear();
        let composed = self.surroundings.plan(&left, &self.runtime, &self.facts).map_err(of_host)?;
        let (plan, policy) = (Arc::new(composed.plan), Arc::new(left));
        Ok(Some(Grant { plan, policy, once: true, granted: Vec::new(), ahead: None }))
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
        let params = params.map_err(|error| {
            NoGrant::Arguments(format!("the arguments cannot be read: {error}"), Vec::new())
        })?;
        let arguments = params.as_ref().and_then(|params| params.get("arguments")).unwrap_or(&Value::Null);
        let (mut left, mut granted) = match tool.grants.paths.as_slice() {
            [] => (left.clone(), Vec::new()),
            paths => self.of_paths((whole, less), left, paths, arguments)?,
        };
        if !tool.grants.connect.is_empty() {
            let (network, doors) = self.of_destinations(whole, &left, tool, arguments)?;
            left.network = network;
            granted.extend(doors);
        }
        Ok((left, granted))
    }

    /// The doors to what the arguments of a call name.
    fn of_destinations(
        &self,
        whole: &Policy,
        left: &Policy,
        tool: &Tool,
        arguments: &Value,
    ) -> Result<(Network, Vec<Granted>), NoGrant> {
        let apply = |network: &Network| connected(network, &whole.name, &tool.grants.connect, arguments);
        apply(&left.network).map_err(|error| {
            let by_client = left.network != whole.network && apply(&whole.network).is_ok();
            let hint = if by_client { Some(DOORS_BY_CLIENT.to_owned()) } else { error.hint() };
            let refused = error.refused().map(|(destination, allow)| Violation {
                object: destination.to_string(),
                allow: allow.filter(|_| !by_client),
                ..Violation::of_toolcell(Layer::Arguments, "connect", "`grants` of the tool".to_owned())
            });
            let told = Failure::new(Ending::Configuration, error).hint(hint).render(false);
            NoGrant::Arguments(told, refused.into_iter().collect())
        })
    }

    /// What the paths in the arguments of a call leave of a policy.
    fn of_paths(
        &self,
        (whole, less): (&Policy, bool),
        left: &Policy,
        paths: &[ArgumentGrant],
        arguments: &Value,
    ) -> Result<(Policy, Vec<Granted>), NoGrant> {
        let mut grants = Cow::Borrowed(paths);
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
            NoGrant::Arguments(
                Failure::new(Ending::Configuration, error).hint(hint).render(false),
                Vec::new(),
            )
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

/// Why a destination is not reached that the profile lets tools reach.
const DOORS_BY_CLIENT: &str =
    "the profile allows it; the policy that the client sends lets nothing reach the network";

/// The directories that grants speak of, as they are named and where they lead.
fn of_grants(files: &Files, grants: &[ArgumentGrant]) -> Vec<Place> {
    let places = grants.iter().flat_map(|grant| {
        let access = Access {
            write: grant.access == Use::Write,
            names: grant.access == Use::List,
            ..Access::default()
        };
        let led = |path: &PathBuf| files.resolve(path).map_or_else(|_| path.clone(), |found| found.real);
        grant
            .within
            .iter()
            .flat_map(move |path| [path.clone(), led(path)])
            .map(move |path| Place { path, access })
    });
    places.collect()
}

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
    for door in policy.network.doors() {
        let path = door.destination.to_string();
        if !granted.iter().any(|known| known.access == "connect" && known.path == path) {
            granted.push(Granted { access: "connect".to_owned(), path, by: None });
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
        if method == LISTS
            && let Some(grant) = self.of_lists(profile, less)?
        {
            return Ok(grant);
        }
        let tool = self.served.tool(method, target).filter(|tool| !tool.grants.is_empty());
        if (tool.is_some() || !bounds.is_empty())
            && let Some(grant) = self.of_call((profile, less), (target, tool), params, bounds)?
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
