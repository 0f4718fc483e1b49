//! `toolcell secrets check`: how old each secret of a configuration is, and whether tools can get it; and what `run` needs to
//! give secrets to tools.
//!
//! Neighbours: `secrets` reads the values, `policy::config::secrets` says where they are. Never: prints one, or keeps one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::compose::Surroundings;
use super::doors;
use super::run::files_failed;
use crate::audit::to_line;
use crate::cli::SecretsArgs;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::add::Additions;
use crate::policy::config::Server;
use crate::policy::config::secrets::{From, Place, Secret};
use crate::policy::units::print_duration;
use crate::secrets::keeper::Keeper;
use crate::secrets::source::{Seen, Sources, print_age};
use crate::secrets::state::warn_age;
use crate::secrets::{Need, State, Trouble};
use crate::session::secrets::{OfDoor, Secrets};
use crate::sys::wiped::Wiped;
use crate::sys::{Errno, environment, identity};
use crate::text::escape;

/// How long reading a secret may take that is not printed by a program.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where systemd puts credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

fn credentials() -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The files from which a secret is read, which no tool may see.
pub(super) fn files(from: &From) -> Vec<PathBuf> {
    match (from, credentials()) {
        (From::Credential(name), Some(directory)) => vec![directory.join(name)],
        (from, _) => from.files(),
    }
}

/// The secrets of a server's tools, and those that doors put in, with a process that reads them. Variables that hold one, for whatever
/// server, are taken out of this process's environment and out of what profiles can let through.
pub(super) fn of_server(
    server: &str,
    secrets: &BTreeMap<String, Secret>,
    of_doors: &[(String, Secret)],
    surroundings: &mut Surroundings,
) -> Result<Option<Secrets>, Failure> {
    let mut variables = BTreeMap::new();
    let of_doors = || of_doors.iter().map(|(name, secret)| (name, secret));
    for (_, secret) in secrets.iter().chain(of_doors()) {
        let From::Env(name) = &secret.from else { continue };
        surroundings.forget_variable(name);
        // A name without a NUL, by the configuration; it may be the source of two.
        let value = CString::new(name.as_str()).ok().and_then(|name| environment::take(&name));
        if let Some(value) = value {
            variables.insert(name.clone(), Wiped::from(value));
        }
    }
    let mut needs: BTreeMap<String, Vec<Need>> = BTreeMap::new();
    let mut doors = Vec::new();
    for (number, (name, secret)) in secrets.iter().chain(of_doors()).enumerate() {
        let patience = match &secret.from {
            From::Command { timeout, .. } | From::Age { timeout, .. } => *timeout,
            From::Env(_) | From::File { .. } | From::Credential(_) => PATIENCE,
        };
        let need = Need {
            number,
            name: name.clone(),
            into: secret.into.clone(),
            max_age: secret.max_age.map(|age| age.as_secs()),
            patience,
        };
        for (_, tool) in secret.to.iter().filter(|(of, _)| of == server) {
            needs.entry(tool.clone()).or_default().push(need.clone());
        }
        if matches!(need.into, Place::Header(_)) {
            doors.push(OfDoor { secret: secret.clone(), need });
        }
    }
    if needs.is_empty() && doors.is_empty() {
        return Ok(None);
    }
    let all = secrets.iter().chain(of_doors());
    let sources = Sources::new(all, variables, credentials(), identity::effective().0);
    let keeper = Keeper::start(sources).map_err(no_keeper)?;
    Ok(Some(Secrets { keeper, needs, doors, told: std::cell::RefCell::default() }))
}

/// There is no process that reads secrets.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the process that reads secrets")]
struct NoKeeper(#[source] Errno);

fn no_keeper(errno: Errno) -> Failure {
    let hint = "look how many processes this user may have, and how many files toolcell may open: `ulimit -u`, `ulimit -n`";
    Failure::new(Ending::Cell, NoKeeper(errno)).hint(Some(hint.to_owned()))
}

/// Reads every secret once, those of doors too, and says what is to be said of it.
pub(super) fn check(args: &SecretsArgs) -> Result<Ending, Failure> {
    let surroundings = Surroundings::of_process(Some(&args.config))?;
    let config = surroundings.library.config().map_err(files_failed)?;
    let profiles: BTreeSet<&str> =
        config.servers.values().flat_map(Server::profiles).chain(config.guarding.tried()).collect();
    let policies = profiles.into_iter().map(|profile| surroundings.policy(profile, &Additions::default()));
    let of_doors = doors::credentials(&policies.collect::<Result<Vec<_>, _>>()?);
    let all = || config.secrets.iter().chain(of_doors.iter().map(|(name, secret)| (name, secret)));
    let variables = all().filter_map(|(_, secret)| match &secret.from {
        From::Env(name) => Some((name.clone(), Wiped::from(std::env::var_os(name)?.into_vec()))),
        _ => None,
    });
    let sources = Sources::new(all(), variables.collect(), credentials(), identity::effective().0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seen: Vec<(&String, &Secret, Seen)> = all()
        .enumerate()
        .map(|(number, (name, secret))| (name, secret, sources.look(number, now, None)))
        .collect();
    let text = if args.json { as_json(&seen) } else { as_text(&seen).into_bytes() };
    let printed = super::print(&text)?;
    let usable = seen.iter().all(|(_, _, seen)| matches!(seen.state, State::Fresh | State::Due));
    Ok(if usable { printed } else { Ending::Other })
}

fn tools(secret: &Secret) -> Vec<String> {
    secret.to.iter().map(|(server, tool)| format!("{server}/{tool}")).collect()
}

fn as_json(seen: &[(&String, &Secret, Seen)]) -> Vec<u8> {
    let seconds = |age: Option<Duration>| age.map(|age| age.as_secs());
    let one = |(name, secret, seen): &(&String, &Secret, Seen)| {
        let trouble = seen.trouble.as_ref().map(|Trouble { message, causes, hint, .. }| {
            json!({ "message": message, "causes": causes, "hint": hint })
        });
        json!({
            "name": name,
            "source": secret.from.describe(),
            "to": tools(secret),
            "into": secret.into.describe(),
            "readable": seen.value.is_some(),
            "format_ok": seen.format,
            "age_s": seconds(seen.age),
            "warn_age_s": seconds(warn_age(secret)),
            "max_age_s": seconds(secret.max_age),
            "state": seen.state,
            "trouble": trouble,
        })
    };
    let list: Vec<Value> = seen.iter().map(one).collect();
    to_line(&json!({ "secrets": list })).unwrap_or_default()
}

fn as_text(seen: &[(&String, &Secret, Seen)]) -> String {
    let mut text = String::new();
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{line}");
    };
    if seen.is_empty() {
        say(format_args!("no secrets"));
    }
    for (name, secret, seen) in seen {
        let age = match (seen.age, secret.max_age) {
            (Some(age), Some(most)) => {
                format!(", {} old of at most {}", print_age(age), print_duration(most))
            }
            (Some(age), None) => format!(", {} old", print_age(age)),
            (None, _) => String::new(),
        };
        let format = match seen.format {
            Some(true) => ", format ok",
            Some(false) => ", wrong format",
            None => "",
        };
        say(format_args!("{}: {}{age}{format}", escape(name), seen.state.name()));
        say(format_args!("  from {}", escape(&secret.from.describe())));
        for tool in tools(secret) {
            say(format_args!("  to {} as {}", escape(&tool), escape(&secret.into.describe())));
        }
        if matches!(secret.into, Place::Header(_)) {
            say(format_args!("  at the door as {}", escape(&secret.into.describe())));
        }
        if let Some(trouble) = &seen.trouble {
            say(format_args!("  error: {}", escape(&trouble.message)));
            for cause in &trouble.causes {
                say(format_args!("    caused by: {}", escape(cause)));
            }
            if let Some(hint) = &trouble.hint {
                say(format_args!("  hint: {}", escape(hint)));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_cannot_be_started_is_named_with_its_reason() {
        let told = no_keeper(Errno(libc::EAGAIN)).render(false);
        let (error, rest) = told.split_once('\n').unwrap();
        assert_eq!(error, "error: cannot start the process that reads secrets");
        assert!(
            rest.contains("caused by: ") && rest.contains("EAGAIN") && rest.contains("`ulimit -u`"),
            "{told}"
        );
    }
}
