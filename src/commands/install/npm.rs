//! A package of npm: fetched into `node_modules` without running anything of it.
//!
//! Neighbours: `install` seals what is there then. Never: believes npm's word for where something came from without a hash.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::cell::Job;
use super::{Made, Work, registry, store_failed, untaken};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::store::{Entry, StoreError, npm, parts, seal};

pub(super) fn fetch(work: &Work<'_>) -> Result<Made, Failure> {
    let package = work.package;
    let registry = registry::npm(None)?;
    let mut options = vec![format!("--registry={registry}")];
    let mut reach = vec![registry::reach(&registry)?];
    for one in package.requirements() {
        let Some((scope, _)) = one.name.split_once('/') else { continue };
        let own = registry::npm(Some(scope))?;
        options.push(format!("--{scope}:registry={own}"));
        reach.push(registry::reach(&own)?);
    }
    reach.extend(work.wishes.reach.iter().cloned());
    reach.dedup();

    let files = work.cells.work.join("files");
    let at = |error| store_failed(StoreError::File(files.clone(), error));
    fs::create_dir(&files).map_err(at)?;
    fs::write(files.join(npm::MANIFEST), npm::manifest(package)).map_err(at)?;
    let run = |words: Vec<OsString>| {
        // Who is refused a host, or gets another archive than was promised, hears of it within seconds.
        let environment = [
            ("npm_config_cache", "{scratch}/npm"),
            ("npm_config_fetch_retry_mintimeout", "1000"),
            ("npm_config_fetch_retry_maxtimeout", "3000"),
        ];
        let command = [OsString::from("npm")].into_iter().chain(words).collect();
        let (write, directory) = (&[files.as_path()][..], Some(files.as_path()));
        let job =
            Job { command, write, reach: &reach, directory, environment: &environment, ..Job::default() };
        work.cells.run(&job)
    };
    run(npm::INSTALL.map(OsString::from).into_iter().chain(options.iter().map(OsString::from)).collect())?;
    let found = npm::found(&files, package).map_err(|error| untaken(package, error))?;
    let wished = work.scripts();
    let (allowed, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
        found.scripted.into_iter().partition(|(name, _)| wished.contains(name));
    if !allowed.is_empty() {
        let words = ["rebuild", "--ignore-scripts=false", "--foreground-scripts"].map(OsString::from);
        // By their directories: a package can have another one in it under any name.
        let places = allowed.values().flatten().map(|place| OsString::from(format!("./{place}")));
        run(words.into_iter().chain(places).collect())?;
    }
    let allowed: Vec<String> = allowed.into_keys().collect();
    if found.programs.is_empty() {
        return Err(Failure::new(Ending::Other, format!("`{package}` has no program"))
            .hint(Some("name the package that has the server's program".to_owned())));
    }
    let id = work.name(None, &allowed, &found.packages);
    let fresh = !work.has(&id)?;
    if fresh {
        // What lies beside it is npm's own, or a script has written it.
        let modules = work.locked.place(&id).map_err(store_failed)?.join(npm::MODULES);
        fs::rename(files.join(npm::MODULES), &modules)
            .map_err(|error| store_failed(StoreError::File(modules, error)))?;
    }
    let entry = Entry {
        name: format!("{}:{}", package.registry.name(), package.main.name),
        version: found.version,
        programs: found.programs,
        main: found.main,
        interpreter: None,
        scripts: allowed,
        reached: Work::reached(&reach),
        packages: found.packages,
        parts: Vec::new(),
        bytes: 0,
    };
    Ok(Made { id, fresh, entry, scripted: left.into_keys().collect(), outside: Vec::new() })
}

/// Does this Node keep what it compiles?
fn compiles() -> bool {
    let version = registry::ask("node", &["--version"]).unwrap_or_default();
    let mut numbers =
        version.trim_start_matches('v').split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(22), Some(1))
}

/// Lets the program start once, with nothing to read and nothing to reach, for what Node compiles of it. All else is sealed by
/// then, and has its hashes; where nothing comes of it, there is no directory for it.
pub(super) fn compile(work: &Work<'_>, tree: &Path, entry: &mut Entry) -> Result<(), Failure> {
    let Some(program) = entry.main.as_ref().filter(|_| compiles()) else { return Ok(()) };
    let place = tree.join(npm::COMPILED);
    beside(&place, || fs::create_dir(&place).map_err(|error| StoreError::File(place.clone(), error)))?;
    let shown = place.to_string_lossy();
    let environment = [(npm::COMPILE_CACHE, shown.as_ref())];
    let command = vec![tree.join("node_modules/.bin").join(program).into_os_string()];
    let write = [place.as_path()];
    let job = Job { command, write: &write, environment: &environment, aside: true, ..Job::default() };
    // Many end with an error, because they miss an argument. They have been compiled by then.
    let _as_it_ends = work.cells.run(&job).is_err();
    match seal(&place, &[]) {
        Ok(bytes) if bytes > 0 => {
            entry.bytes += bytes;
            entry.parts.extend(parts(&place, tree).map_err(|error| untaken(work.package, error))?);
            Ok(())
        }
        _ => beside(&place, || work.locked.remove(&place)),
    }
}

/// Opens the directory around a place that is made or removed.
fn beside(place: &Path, act: impl FnOnce() -> Result<(), StoreError>) -> Result<(), Failure> {
    let around = place.parent().unwrap_or(place);
    let mode = |mode| {
        let set = fs::set_permissions(around, Permissions::from_mode(mode));
        set.map_err(|error| store_failed(StoreError::File(around.to_path_buf(), error)))
    };
    mode(0o755)?;
    act().map_err(store_failed)?;
    mode(0o555)
}
