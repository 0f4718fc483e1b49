//! A package of npm: fetched into `node_modules` without running anything of it.
//!
//! Neighbours: `install` seals what is there then. Never: believes npm's word for where something came from without a hash.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::cell::Job;
use super::{Made, Work, registry, store_failed, untaken};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::store::{Entry, StoreError, npm};

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
    let allowed: Vec<String> = work.allowed(&found.scripted).into_iter().cloned().collect();
    if !allowed.is_empty() {
        let words =
            ["rebuild", "--ignore-scripts=false", "--foreground-scripts"].into_iter().map(OsString::from);
        run(words.chain(allowed.iter().map(OsString::from)).collect())?;
    }
    if found.programs.is_empty() {
        return Err(Failure::new(Ending::Other, format!("`{package}` has no program"))
            .hint(Some("name the package that has the server's program".to_owned())));
    }
    let id = work.name(None, &allowed, &found.packages);
    if !work.has(&id)? {
        let tree = work.locked.place(&id).map_err(store_failed)?;
        fs::rename(&files, &tree).map_err(|error| store_failed(StoreError::File(tree.clone(), error)))?;
        if let Some(main) = found.main.as_ref().filter(|_| compiles()) {
            compile(work, &tree, main)?;
        }
    }
    let scripted = found.scripted.into_iter().filter(|name| !allowed.contains(name)).collect();
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
    Ok(Made { id, entry, scripted, outside: Vec::new() })
}

/// Does this Node keep what it compiles?
fn compiles() -> bool {
    let version = registry::ask("node", &["--version"]).unwrap_or_default();
    let mut numbers =
        version.trim_start_matches('v').split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(22), Some(1))
}

/// Lets the program start once, with nothing to read and nothing to reach, for what Node compiles of it.
fn compile(work: &Work<'_>, tree: &Path, program: &str) -> Result<(), Failure> {
    let place = tree.join(npm::COMPILED);
    let at = |error| store_failed(StoreError::File(place.clone(), error));
    fs::create_dir(&place).map_err(at)?;
    let shown = place.to_string_lossy();
    let environment = [(npm::COMPILE_CACHE, shown.as_ref())];
    let command = vec![tree.join("node_modules/.bin").join(program).into_os_string()];
    let write = [place.as_path()];
    let job = Job { command, write: &write, environment: &environment, aside: true, ..Job::default() };
    // Many end with an error, because they miss an argument. They have been compiled by then.
    let _as_it_ends = work.cells.run(&job).is_err();
    let empty = fs::read_dir(&place).map_err(at)?.next().is_none();
    if empty { fs::remove_dir(&place).map_err(at) } else { Ok(()) }
}
