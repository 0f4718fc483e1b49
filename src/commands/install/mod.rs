//! `toolcell install`: fetches packages once, in cells that reach only their registry, into the store that calls run from.
//!
//! Neighbours: `store` keeps them, `npm` and `pypi` here do one registry each in the cells of `cell`; `compose` asks for a package
//! whose runner a server's command names. Never: lets what it fetched run outside of a cell, or reach anything but by install scripts that a
//! person allowed by name.

mod cell;
mod npm;
mod others;
mod pypi;
mod registry;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use self::cell::Cells;
use self::registry::Reach;
use super::installed;
use super::run::log_path;
use crate::cli::{ColorChoice, InstallArgs, Typed};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::lock::Pinned;
use crate::policy::Floor;
use crate::policy::network::Destination;
use crate::store::package::{Registry, Requirement};
use crate::store::{Entry, Locked, Package, Store, StoreError, Stored, id, parts, runner, seal};
use crate::sys::identity;
use crate::text::escape;

/// What a person says of one installation.
#[derive(Debug)]
pub(super) struct Wishes {
    /// Packages whose install scripts may run.
    scripts: Vec<String>,
    /// What may be reached beside the registry.
    reach: Vec<Reach>,
    /// The weakest isolation that is accepted.
    floor: Floor,
    /// The log that has what was done in the cells, and what they were refused.
    log: PathBuf,
}

/// The store of this user.
pub(super) fn store() -> Result<Store, Failure> {
    installed::store().ok_or_else(|| {
        Failure::new(Ending::Configuration, "there is no place for the store: `HOME` is not set")
            .hint(Some("name a directory of your own in `XDG_DATA_HOME`".to_owned()))
    })
}

pub(super) fn store_failed(error: StoreError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Other, error).hint(Some(hint))
}

/// Runs the command.
pub(super) fn run(args: &InstallArgs, color: ColorChoice) -> Result<Ending, Failure> {
    let mut packages = Vec::new();
    for Typed { text, .. } in &args.packages {
        let package: Result<Package, _> = text.parse().and_then(|package: Package| package.with(&args.with));
        packages.push(package.map_err(|error| {
            let hint = error.hint().to_owned();
            Failure::new(Ending::Usage, error).hint(Some(hint))
        })?);
    }
    let floor = args.floor.unwrap_or(Floor::Full);
    let mut wishes = Wishes { scripts: args.scripts.clone(), reach: Vec::new(), floor, log: log(None)? };
    wishes.scripts.sort();
    let names_one =
        |text: &String| packages.iter().any(|package| Requirement::name(package.registry, text).is_some());
    if let Some(text) = wishes.scripts.iter().find(|text| !names_one(text)) {
        let told = format!("`{text}` of `--allow-scripts` is no name of a package");
        let hint = "name each package whose install scripts may run, without a version".to_owned();
        return Err(Failure::new(Ending::Usage, told).hint(Some(hint)));
    }
    for Typed { text, option } in &args.net {
        let parsed: Result<Destination, _> = text.parse();
        let right = parsed.map(|_right| registry::reach_place(text)).map_err(|error| {
            let hint = error.hint();
            Failure::new(Ending::Usage, error).hint(hint)
        })?;
        wishes.reach.push(
            right.ok_or_else(|| {
                Failure::new(Ending::Usage, format!("`{text}` is not a value of `{option}`"))
            })?,
        );
    }
    let store = store()?;
    let mut text = String::new();
    for package in &packages {
        let (stored, scripted) = fetch(&store, &lock(&store, color)?, package, &wishes)?;
        show(&mut text, package, &stored);
        remark(color, package, &scripted);
    }
    super::print(text.as_bytes())
}

fn show(text: &mut String, package: &Package, stored: &Stored) {
    let Stored { id, entry, .. } = stored;
    let (version, count) = (escape(&entry.version), entry.packages.len());
    let _infallible =
        writeln!(text, "{package} is {version}, {count} packages, {} KiB: {id}", entry.bytes >> 10);
    for name in entry.programs.keys() {
        if let Some(path) = stored.program(Some(name)) {
            let _infallible = writeln!(text, "  {}", escape(&path.to_string_lossy()));
        }
    }
}

fn remark(color: ColorChoice, package: &Package, scripted: &[String]) {
    if scripted.is_empty() {
        return;
    }
    let names = scripted.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let hint = format!("if a program of it does not work: {}", package.to_command(scripted));
    diag::warn(color, &format!("install scripts were not run: {names}"), Some(&hint));
}

/// The store, once nobody else changes it.
pub(super) fn lock(store: &Store, color: ColorChoice) -> Result<Locked<'_>, Failure> {
    let waits = || diag::warn(color, "another `toolcell` changes the store: this one waits for it", None);
    store.lock(identity::effective().0, waits).map_err(store_failed)
}

/// Fetches the package that a server's command asks its runner for, if it is not in the store.
pub(super) fn wanted(
    command: &[String],
    floor: Floor,
    audit: Option<&PathBuf>,
    color: ColorChoice,
) -> Result<(), Failure> {
    let Some(asked) = runner::asked(command) else { return Ok(()) };
    let package = asked.map_err(installed::unclear)?.package;
    let store = store()?;
    let is_there = || Ok(store.find(&package, identity::effective().0).map_err(store_failed)?.is_some());
    if is_there()? {
        return Ok(());
    }
    let locked = lock(&store, color)?;
    // Another one may have fetched it meanwhile.
    if is_there()? {
        return Ok(());
    }
    let typed = package.to_command(&[]);
    let fetcher = match package.registry {
        Registry::Npm => "npm",
        Registry::Pypi => "pip",
    };
    let program = command.first().map_or("", String::as_str);
    others::check(program, (fetcher, &typed), || asked_for(&package))?;
    diag::warn(color, &format!("`{package}` is not in the store: it is fetched now, once"), None);
    let wishes = Wishes { scripts: Vec::new(), reach: Vec::new(), floor, log: log(audit)? };
    let (_stored, scripted) = fetch(&store, &locked, &package, &wishes)?;
    remark(color, &package, &scripted);
    Ok(())
}

/// The registries that are asked for a package.
fn asked_for(package: &Package) -> Result<Vec<String>, Failure> {
    match package.registry {
        Registry::Npm => {
            let scopes = package.requirements().filter_map(|one| Some(one.name.split_once('/')?.0));
            let own = scopes.map(|scope| registry::npm(Some(scope)));
            [registry::npm(None)].into_iter().chain(own).collect()
        }
        Registry::Pypi => Ok(vec![registry::pypi(&pypi::python()?.to_string_lossy())?.0]),
    }
}

/// Where the cells' records go, which start elsewhere: to the log of `run`.
fn log(named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    std::path::absolute(log_path(named)?).map_err(|error| Failure::new(Ending::Audit, error))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot install `{package}`")]
struct NotInstalled {
    package: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn untaken(package: &Package, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let hint =
        "what a registry does not have in this form has to be installed by hand: then name its program";
    // What has a cause of its own is not for the package.
    let hint = error.source().is_none().then(|| hint.to_owned());
    let failed = NotInstalled { package: package.to_string(), source: Box::new(error) };
    Failure::new(Ending::Other, failed).hint(hint)
}

/// One installation under way.
struct Work<'a> {
    package: &'a Package,
    wishes: &'a Wishes,
    locked: &'a Locked<'a>,
    store: &'a Store,
    cells: Cells<'a>,
}

/// What an installation has found out of an entry before its files are sealed.
struct Made {
    id: String,
    /// Its files have just been put there.
    fresh: bool,
    entry: Entry,
    /// Packages whose scripts did not run.
    scripted: Vec<String>,
    /// Links that lead out of the tree, and where to.
    outside: Vec<(PathBuf, PathBuf)>,
}

/// Fetches a package, also if one of its name is in the store, and lets the name stand for what came.
fn fetch(
    store: &Store,
    locked: &Locked<'_>,
    package: &Package,
    wishes: &Wishes,
) -> Result<(Stored, Vec<String>), Failure> {
    let directory = locked.work().map_err(store_failed)?;
    let program = std::env::current_exe().map_err(|error| Failure::new(Ending::Other, error))?;
    let cells = Cells { program: &program, work: &directory, floor: wishes.floor, log: &wishes.log };
    let work = Work { package, wishes, locked, store, cells };
    let done = match package.registry {
        Registry::Npm => npm::fetch(&work),
        Registry::Pypi => pypi::fetch(&work),
    };
    let done = done.and_then(|made| work.finish(made));
    let removed = locked.remove(&directory).map_err(store_failed);
    let (id, scripted) = done?;
    removed?;
    let stored = store.stored(&id).map_err(store_failed)?;
    let stored = stored.ok_or_else(|| Failure::new(Ending::Other, format!("the store has no `{id}`")))?;
    Ok((stored, scripted))
}

impl Work<'_> {
    /// Is there an entry of this name already, as it was installed? Then nothing has to be put there.
    fn has(&self, id: &str) -> Result<bool, Failure> {
        match self.store.stored(id) {
            Err(StoreError::Broken(..)) => Ok(false),
            stored => Ok(stored.map_err(store_failed)?.is_some_and(|stored| stored.is_as_installed())),
        }
    }

    fn finish(&self, made: Made) -> Result<(String, Vec<String>), Failure> {
        let Made { id, fresh, mut entry, scripted, outside } = made;
        if fresh {
            let tree = self.store.root().join(&id).join(crate::store::TREE);
            entry.bytes = seal(&tree, &outside).map_err(|error| untaken(self.package, error))?;
            entry.parts = parts(&tree, &tree).map_err(|error| untaken(self.package, error))?;
            if self.package.registry == Registry::Npm {
                npm::compile(self, &tree, &mut entry)?;
            }
            self.locked.finish(&id, &entry).map_err(store_failed)?;
        }
        self.locked.assign(self.package, &id).map_err(store_failed)?;
        Ok((id, scripted))
    }

    /// What the cells could reach, for the record.
    fn reached(reach: &[Reach]) -> Vec<String> {
        reach.iter().map(|reach| reach.destination.to_string()).collect()
    }

    /// Packages whose scripts a person allowed, by the names that the registry has for them.
    fn scripts(&self) -> Vec<String> {
        self.wishes.scripts.iter().filter_map(|text| Requirement::name(self.package.registry, text)).collect()
    }

    fn name(&self, interpreter: Option<&Path>, scripts: &[String], packages: &[Pinned]) -> String {
        let interpreter = interpreter.map(|path| path.to_string_lossy());
        id(self.package.registry, interpreter.as_deref(), scripts, packages)
    }
}
