//! `toolcell lock`: keeps what servers are, compares it, and accepts what changed when somebody has looked at it.
//!
//! Neighbours: `lock::found` looks at the host, `lock::lists` asks the server in its cell, `crate::lock` compares. Never: accepts
//! a change or a flag that nobody has accepted, or leaves half a file.

pub(super) mod found;
mod lists;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::compose::{self, Surroundings};
use super::install;
use super::run::Served;
use crate::cli::{ColorChoice, LockArgs, LockDoes, RunArgs, Server as OneServer, WhichServers};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::lock::{Definition, Flag, Item, Kind, LockFile, RULES, Server, compare, flags, shadowed};
use crate::policy::Floor;
use crate::policy::mistakes::closest;
use crate::text::{escape, quoted_path};

#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error("no lock file is named")]
    NoFile,
    #[error("cannot lock server `{0}`")]
    Lists(String, #[source] lists::ListError),
    #[error("cannot write `{}`", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("cannot read the answer")]
    Answer(#[source] io::Error),
    #[error("there is no terminal to ask on")]
    NoTerminal,
    #[error("cannot use the value `{0}` of `--accept-flagged`: {1}")]
    Accepted(String, String),
    #[error("server{} {} not as locked", if .0.len() == 1 { "" } else { "s" }, sentence(.0))]
    Differs(Vec<String>),
    #[error("what is flagged has to be accepted first, and nothing was written")]
    Flagged,
}

fn sentence(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// What one `--accept-flagged` accepts.
struct Accepted {
    server: String,
    name: String,
    rule: &'static str,
}

/// What a rule has found, and where.
struct Flagged {
    server: String,
    kind: Kind,
    name: String,
    flag: Flag,
}

/// Locks, compares or reviews.
pub(super) fn run(args: &LockArgs, color: ColorChoice) -> Result<Ending, Failure> {
    let config = match &args.servers {
        WhichServers::Command(_) => None,
        WhichServers::Configured { config, .. } => Some(config.as_path()),
    };
    let surroundings = Surroundings::of_process(config)?;
    let Some(path) = found::path(args.lock.as_ref(), &surroundings) else {
        let hint = "name one with `--lock FILE`, for `toolcell run --lock FILE -- SERVER` as well";
        return Err(Failure::new(Ending::Usage, LockError::NoFile).hint(Some(hint.to_owned())));
    };
    let accepted = accepted(args)?;
    let there = found::read(&surroundings, &path)?;
    let old = there.clone().unwrap_or_default();
    let mut new = old.clone();
    let mut named = Vec::new();
    for server in servers(args, &surroundings)? {
        let (name, found) = look(args, &surroundings, server, &path, color)?;
        named.push(name.clone());
        new.servers.insert(name, found);
    }
    if let (WhichServers::Configured { names, .. }, true) = (&args.servers, args.does != LockDoes::Check)
        && names.is_empty()
    {
        // All were asked for, so the others are not in the configuration any more.
        new.servers.retain(|name, _| named.contains(name));
    }
    keep_accepted(&mut new, &old);
    accept(&mut new, &accepted)?;
    let differing: Vec<String> = named
        .iter()
        .filter(|name| old.servers.contains_key(*name) || args.does == LockDoes::Check)
        .filter(|name| new.servers.get(*name).is_some_and(|found| !compare(&old, name, found).is_empty()))
        .cloned()
        .collect();
    match args.does {
        LockDoes::Check | LockDoes::Write => {
            show_differences(&old, &new, &differing)?;
            if !differing.is_empty() {
                let hint = "look at it and accept it with `toolcell lock --review`".to_owned();
                return Err(Failure::new(Ending::Altered, LockError::Differs(differing)).hint(Some(hint)));
            }
        }
        LockDoes::Review | LockDoes::ReviewAll => review(args, &old, &mut new, &differing)?,
    }
    if args.does == LockDoes::Check {
        return super::print(format!("{} as locked\n", sentence(&named)).as_bytes());
    }
    settle_flags(args, &mut new)?;
    if there.as_ref() == Some(&new) {
        return super::print(format!("`{}` is as it was\n", path.display()).as_bytes());
    }
    write(&path, &new)?;
    super::print(report(&path, &new, &named).as_bytes())
}

/// Which servers, as `run` would be told each of them.
fn servers(args: &LockArgs, surroundings: &Surroundings) -> Result<Vec<OneServer>, Failure> {
    let (config, names) = match &args.servers {
        WhichServers::Command(command) => return Ok(vec![OneServer::Command(command.clone())]),
        WhichServers::Configured { config, names } => (config, names),
    };
    let all = || -> Result<Vec<String>, Failure> {
        let config = surroundings.library.config().map_err(|error| {
            let hint = error.hint();
            Failure::new(Ending::Configuration, error).hint(hint)
        })?;
        Ok(config.servers.into_keys().collect())
    };
    let names = if names.is_empty() { all()? } else { names.clone() };
    let one = |name: String| OneServer::Configured { config: config.clone(), name: Some(name) };
    Ok(names.into_iter().map(one).collect())
}

/// A server as it is now.
fn look(
    args: &LockArgs,
    surroundings: &Surroundings,
    server: OneServer,
    lock: &Path,
    color: ColorChoice,
) -> Result<(String, Server), Failure> {
    let as_run = RunArgs {
        server,
        jobs: None,
        spares: None,
        spares_memory: None,
        spares_idle: None,
        state: None,
        no_validate: false,
        lock: None,
        lists_only: true,
        shared: args.shared.clone(),
    };
    let arguments = as_run.words(color);
    let mut additions = compose::additions(&args.shared, &surroundings.world.cwd)?;
    let served = Served::find(&as_run, surroundings)?;
    additions.env.extend(served.env.clone());
    let (mut found, policies) = found::surroundings_of(surroundings, &served, &additions)?;
    let floor = policies.first().map_or(Floor::Full, |policy| policy.floor);
    install::wanted(&served.command, floor, args.shared.audit.as_ref(), color)?;
    let runtime = surroundings.runtime(&served.command)?;
    let logs: Vec<PathBuf> =
        args.shared.audit.clone().or_else(|| super::audit::default_log().ok()).into_iter().collect();
    found.package = found::package(surroundings, &runtime)?;
    found.program = found::program(surroundings, &runtime, &policies, lock, &logs)?;
    found.items = lists::ask(&arguments).map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::new(Ending::Other, LockError::Lists(served.name.clone(), error)).hint(Some(hint))
    })?;
    Ok((served.name, found))
}

/// A value of `--accept-flagged` that accepts nothing.
fn accepts_nothing(typed: &str, why: String, hint: Option<String>) -> Failure {
    Failure::new(Ending::Usage, LockError::Accepted(typed.to_owned(), why)).hint(hint)
}

/// Server, name and rule of each `--accept-flagged`.
fn accepted(args: &LockArgs) -> Result<Vec<Accepted>, Failure> {
    let one = |typed: &crate::cli::Typed| {
        let text = &typed.text;
        let bad = |why: String, hint: Option<String>| accepts_nothing(text, why, hint);
        let parts = text.rsplit_once('=').and_then(|(what, rule)| Some((what.split_once('/')?, rule)));
        let Some(((server, name), rule)) = parts else {
            let hint = "write `SERVER/NAME=RULE`, as in `git/git_log=secrecy`";
            return Err(bad("it names no server, definition and rule".to_owned(), Some(hint.to_owned())));
        };
        let Some(rule) = RULES.iter().map(|known| known.id).find(|id| *id == rule) else {
            let hint = closest(rule, RULES.iter().map(|rule| rule.id));
            let hint = hint.map(|meant| format!("did you mean `{meant}`?"));
            return Err(bad(format!("there is no rule `{rule}`"), hint));
        };
        Ok(Accepted { server: server.to_owned(), name: name.to_owned(), rule })
    };
    args.accepted.iter().map(one).collect()
}

/// What was accepted of a definition stays accepted as long as the definition does.
fn keep_accepted(new: &mut LockFile, old: &LockFile) {
    for (server, found) in &mut new.servers {
        for (kind, items) in &mut found.items {
            for item in items {
                let known = old.servers.get(server).and_then(|old| old.items.get(kind));
                let same = known.into_iter().flatten().find(|known| known.definition == item.definition);
                item.accepted.extend(same.into_iter().flat_map(|known| known.accepted.iter().cloned()));
            }
        }
    }
}

/// Accepts what was typed. What is of nothing that there is was meant for something else.
fn accept(new: &mut LockFile, accepted: &[Accepted]) -> Result<(), Failure> {
    for Accepted { server, name, rule } in accepted {
        let nothing = |why: String, nearest: Option<String>| {
            let hint = match nearest {
                Some(nearest) => format!("did you mean `{nearest}={rule}`?"),
                None => "without `--accept-flagged`, what is flagged is told with the option that accepts it"
                    .to_owned(),
            };
            accepts_nothing(&format!("{server}/{name}={rule}"), why, Some(hint))
        };
        let Some(found) = new.servers.get_mut(server) else {
            let nearest = closest(server, new.servers.keys().map(String::as_str));
            let nearest = nearest.map(|nearest| format!("{nearest}/{name}"));
            return Err(nothing(format!("there is no server `{server}`"), nearest));
        };
        // It may be typed as it is, and as it is told.
        let exact = found.items.values().flatten().any(|item| item.definition.name == *name);
        let meant = |item: &Item| match exact {
            true => item.definition.name == *name,
            false => escape(&item.definition.name) == name.as_str(),
        };
        if !found.items.values().flatten().any(meant) {
            let names: Vec<_> =
                found.items.values().flatten().map(|item| escape(&item.definition.name)).collect();
            let nearest = closest(name, names.iter().map(AsRef::as_ref));
            let nearest = nearest.map(|nearest| format!("{server}/{nearest}"));
            return Err(nothing(format!("server `{server}` has no definition `{name}`"), nearest));
        }
        let items = found.items.values_mut().flatten().filter(|item| meant(item));
        items.for_each(|item| item.accepted.extend([(*rule).to_owned()]));
    }
    Ok(())
}

/// What is flagged and was not accepted.
fn flagged(lock: &LockFile) -> Vec<Flagged> {
    let mut tools: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (server, found) in &lock.servers {
        for item in found.items.get(&Kind::Tool).into_iter().flatten() {
            let of = tools.entry(&item.definition.name).or_default();
            if !of.contains(&server.as_str()) {
                of.push(server);
            }
        }
    }
    let mut all = Vec::new();
    for (server, found) in &lock.servers {
        for (kind, items) in &found.items {
            for item in items {
                let Definition { name, .. } = &item.definition;
                let others = tools.get(name.as_str()).filter(|_| *kind == Kind::Tool).into_iter().flatten();
                let shadow = others.filter(|other| **other != server).map(|other| shadowed(other)).next();
                let found = flags(*kind, &item.definition).into_iter().chain(shadow);
                let open = found.filter(|flag| !item.accepted.contains(flag.rule));
                let of = |flag| Flagged { server: server.clone(), kind: *kind, name: name.clone(), flag };
                all.extend(open.map(of));
            }
        }
    }
    all
}

/// Lets nothing through that is flagged and not accepted, here or before.
fn settle_flags(args: &LockArgs, new: &mut LockFile) -> Result<(), Failure> {
    let open = flagged(new);
    if open.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for Flagged { server, kind, name, flag } in &open {
        let Flag { rule, place, excerpt } = flag;
        let (name, place) = (escape(name), escape(place));
        let noun = kind.noun();
        let _infallible = writeln!(
            text,
            "flagged: {noun} `{name}` of server `{server}`, rule `{rule}`, {place}: {excerpt}"
        );
    }
    super::print(text.as_bytes())?;
    let refused = || {
        let options: Vec<String> = open
            .iter()
            .map(|Flagged { server, name, flag, .. }| {
                format!("--accept-flagged '{server}/{}={}'", escape(name), flag.rule)
            })
            .collect();
        let hint = format!("if it is harmless: {}", options.join(" "));
        Failure::new(Ending::Refused, LockError::Flagged).hint(Some(hint))
    };
    if args.does == LockDoes::Review && io::stdin().is_terminal() {
        if !ask("accept all that is flagged?")? {
            return Err(refused());
        }
        for Flagged { server, kind, name, flag } in open {
            let items = new.servers.get_mut(&server).and_then(|server| server.items.get_mut(&kind));
            let of_name = items.into_iter().flatten().filter(|item| item.definition.name == name);
            of_name.for_each(|item| item.accepted.extend([flag.rule.to_owned()]));
        }
        return Ok(());
    }
    Err(refused())
}

fn show_differences(old: &LockFile, new: &LockFile, names: &[String]) -> Result<(), Failure> {
    let mut text = String::new();
    for name in names {
        for difference in new.servers.get(name).map(|found| compare(old, name, found)).into_iter().flatten() {
            text.push_str(&difference.text());
            text.push('\n');
        }
    }
    super::print(text.as_bytes()).map(drop)
}

/// Takes each server's changes that are accepted, and leaves the others as they were.
fn review(args: &LockArgs, old: &LockFile, new: &mut LockFile, differing: &[String]) -> Result<(), Failure> {
    for name in differing {
        show_differences(old, new, std::slice::from_ref(name))?;
        if args.does == LockDoes::ReviewAll {
            continue;
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::new(Ending::Altered, LockError::NoTerminal).hint(Some(UNASKED.to_owned())));
        }
        if !ask(&format!("accept this of server `{name}`?"))?
            && let Some(before) = old.servers.get(name)
        {
            new.servers.insert(name.clone(), before.clone());
        }
    }
    Ok(())
}

/// What to do where nobody can be asked.
const UNASKED: &str = "`--yes` accepts without asking";

fn ask(question: &str) -> Result<bool, Failure> {
    super::yes(question)
        .map_err(|error| Failure::new(Ending::Other, LockError::Answer(error)).hint(Some(UNASKED.to_owned())))
}

/// Puts the new file in the old one's place when it is whole.
fn write(path: &Path, lock: &LockFile) -> Result<(), Failure> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let failed = |written: &Path, error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("if no `toolcell lock` is at work, one was killed: rm {}", quoted_path(&new))
            }
            _ => format!(
                "nothing was changed. `{}` must be a file, in a directory that is there, may be written and has \
                 room for it; or name another with `--lock FILE`",
                path.display()
            ),
        };
        Failure::new(Ending::Other, LockError::Write(written.to_path_buf(), error)).hint(Some(hint))
    };
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&new)
        .map_err(|error| failed(&new, error))?;
    let written = file.write_all(lock.to_toml().as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&new, path)).map_err(|error| {
        drop(fs::remove_file(&new));
        failed(path, error)
    })
}

fn report(path: &Path, lock: &LockFile, names: &[String]) -> String {
    let mut text = String::new();
    for (name, server) in names.iter().filter_map(|name| Some((name, lock.servers.get(name)?))) {
        let count = |kind: Kind| server.items.get(&kind).map_or(0, Vec::len);
        let files: u64 = server.program.iter().map(|part| part.files).sum();
        let _infallible = writeln!(
            text,
            "locked server `{name}`: {} tools, {} prompts, {} resources, {} resource templates, {files} files of its program, {} profiles",
            count(Kind::Tool),
            count(Kind::Prompt),
            count(Kind::Resource),
            count(Kind::Template),
            server.profiles.len()
        );
    }
    let _infallible = writeln!(text, "in `{}`", path.display());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Server `git` with tools of these names.
    fn lock(names: &[&str]) -> LockFile {
        let item = |name: &&str| {
            let definition = Definition { name: (*name).to_owned(), ..Definition::default() };
            Item { definition, ..Item::default() }
        };
        let items = [(Kind::Tool, names.iter().map(item).collect())].into();
        LockFile { servers: [("git".to_owned(), Server { items, ..Server::default() })].into() }
    }

    /// What is accepted of each tool of `git` then, or what is told.
    fn accepting(names: &[&str], server: &str, name: &str) -> Result<Vec<usize>, String> {
        let mut lock = lock(names);
        let typed = Accepted { server: server.to_owned(), name: name.to_owned(), rule: "secrecy" };
        accept(&mut lock, &[typed]).map_err(|failure| failure.render(false))?;
        let items = &lock.servers["git"].items[&Kind::Tool];
        Ok(items.iter().map(|item| item.accepted.len()).collect())
    }

    #[test]
    fn what_accepts_nothing_is_a_mistake() {
        assert_eq!(accepting(&["git_log", "git_add"], "git", "git_log"), Ok(vec![1, 0]));
        let told = |server: &str, name: &str| accepting(&["git_log"], server, name).unwrap_err();
        insta::assert_snapshot!(told("gti", "git_log"), @r"
        error: cannot use the value `gti/git_log=secrecy` of `--accept-flagged`: there is no server `gti`
        hint: did you mean `git/git_log=secrecy`?
        ");
        insta::assert_snapshot!(told("git", "git-log"), @r"
        error: cannot use the value `git/git-log=secrecy` of `--accept-flagged`: server `git` has no definition `git-log`
        hint: did you mean `git/git_log=secrecy`?
        ");
        insta::assert_snapshot!(told("git", "send_mail"), @r"
        error: cannot use the value `git/send_mail=secrecy` of `--accept-flagged`: server `git` has no definition `send_mail`
        hint: without `--accept-flagged`, what is flagged is told with the option that accepts it
        ");
    }

    #[test]
    fn a_name_may_be_typed_as_it_is_told_and_is_that_of_nothing_else() {
        let hidden = "a\u{200b}";
        assert_eq!(accepting(&[hidden], "git", r"a\u{200b}"), Ok(vec![1]));
        assert_eq!(accepting(&[hidden, r"a\u{200b}"], "git", r"a\u{200b}"), Ok(vec![0, 1]));
        assert_eq!(accepting(&[hidden, r"a\u{200b}"], "git", hidden), Ok(vec![1, 0]));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind_and_a_way_on() {
        let here = std::env::temp_dir().join(format!("toolcell-lock-{}", std::process::id()));
        drop(fs::remove_dir_all(&here));
        let file = here.join("toolcell.lock");
        let told = |path: &Path| write(path, &lock(&[])).unwrap_err().render(false);
        let missing = told(&file);
        assert!(missing.contains(&format!("hint: nothing was changed. `{}`", file.display())), "{missing}");
        // A directory stands where the file belongs.
        fs::create_dir_all(&file).unwrap();
        let directory = told(&file);
        assert!(
            directory.contains(&format!("hint: nothing was changed. `{}`", file.display())),
            "{directory}"
        );
        assert_eq!(fs::read_dir(&here).unwrap().count(), 1);
        fs::write(here.join("toolcell.lock.new"), "").unwrap();
        let taken = told(&file);
        assert!(taken.contains("one was killed: rm '"), "{taken}");
        fs::remove_dir_all(&here).unwrap();
    }
}
