//! A package of PyPI: its wheels in a virtual environment of its own.
//!
//! Neighbours: `install` seals what is there then. Never: builds a package that a person did not name.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::cell::Job;
use super::registry::{self, Reach};
use super::{Made, Work, store_failed, untaken};
use crate::commands::compose::Surroundings;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::store::{Entry, StoreError, TREE, pypi};

/// Hosts of files that an index may name.
const MOST_HOSTS: usize = 8;

pub(super) fn fetch(work: &Work<'_>) -> Result<Made, Failure> {
    let package = work.package;
    let python = python()?;
    let shown = python.to_string_lossy().into_owned();
    let (index, certificates) = registry::pypi(&shown)?;
    let own = registry::reach(&index)?;
    let found = hosts(work, &python, &index, &own, certificates.as_deref())?;
    let mut reach: Vec<Reach> =
        [own].into_iter().chain(found).chain(work.wishes.reach.iter().cloned()).collect();
    reach.dedup();

    let files = work.cells.work.join("files");
    let at = |error| store_failed(StoreError::File(files.clone(), error));
    fs::create_dir(&files).map_err(at)?;
    let pip = Pip {
        work,
        python: &python,
        index: &index,
        certificates: certificates.as_deref().map(Path::new),
        reach: &reach,
    };
    let report = files.join("report.json");
    let wanted = package.requirements().map(|one| one.to_argument(package.registry));
    let words = ["--dry-run", "--ignore-installed", "--report"].map(str::to_owned).into_iter();
    let words = words.chain([report.to_string_lossy().into_owned()]).chain(wanted);
    pip.run(None, words.collect(), &files, &[])?;
    let packages = pypi::pinned(&report).map_err(|error| untaken(package, error))?;
    let version = pypi::version(&packages, package).map_err(|error| untaken(package, error))?;
    let scripts = work.scripts();
    let real = python.canonicalize().unwrap_or_else(|_gone| python.clone());
    let id = work.name(Some(&real), &scripts, &packages);
    let mut entry = Entry {
        name: format!("{}:{}", package.registry.name(), package.main.name),
        version,
        programs: std::collections::BTreeMap::new(),
        main: None,
        interpreter: Some(real.to_string_lossy().into_owned()),
        scripts,
        reached: Work::reached(&reach),
        packages,
        parts: Vec::new(),
        bytes: 0,
    };
    let mut outside = Vec::new();
    let fresh = !work.has(&id)?;
    if fresh {
        // At its last place, which programs of an environment have in their first lines.
        let tree = work.locked.place(&id).map_err(store_failed)?;
        let made =
            [OsString::from(&python)].into_iter().chain(["-m", "venv", "--without-pip"].map(OsString::from));
        let command = made.chain([OsString::from(&tree)]).collect();
        work.cells.run(&Job { command, write: &[&tree], ..Job::default() })?;
        let settings = pypi::settings(&tree).map_err(|error| untaken(package, error))?;
        let list = files.join("requirements.txt");
        fs::write(&list, pypi::requirements(&entry.packages)).map_err(at)?;
        let words = ["--require-hashes", "--no-deps", "--requirement"].map(str::to_owned).into_iter();
        let words = words.chain([list.to_string_lossy().into_owned()]).collect();
        pip.run(Some(&tree.join("bin/python")), words, &tree, &[&files])?;
        if pypi::settings(&tree).map_err(|error| untaken(package, error))? != settings {
            return Err(untaken(package, pypi::Untaken::Settings));
        }
        outside = links(&tree, &[&python, &real]);
    }
    let tree = work.store.root().join(&id).join(TREE);
    (entry.programs, entry.main) = pypi::programs(&tree, package).map_err(|error| untaken(package, error))?;
    if entry.programs.is_empty() {
        return Err(Failure::new(Ending::Other, format!("`{package}` has no program"))
            .hint(Some("name the package that has the server's program".to_owned())));
    }
    Ok(Made { id, fresh, entry, scripted: Vec::new(), outside })
}

/// The person's Python.
pub(super) fn python() -> Result<PathBuf, Failure> {
    let surroundings = Surroundings::of_host()?;
    Ok(surroundings.runtime(&["python3".to_owned()])?.program)
}

/// The links by which an environment leads to its interpreter.
fn links(tree: &Path, interpreters: &[&Path]) -> Vec<(PathBuf, PathBuf)> {
    let named = fs::read_dir(tree.join("bin")).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = named
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python")));
    named.flat_map(|link| interpreters.iter().map(move |leads| (link.clone(), leads.to_path_buf()))).collect()
}

/// Where else the index keeps the files of these packages, by its own pages.
fn hosts(
    work: &Work<'_>,
    python: &Path,
    index: &str,
    own: &Reach,
    certificates: Option<&str>,
) -> Result<Vec<Reach>, Failure> {
    let names = work.package.requirements().map(|one| OsString::from(&one.name));
    let command =
        [OsString::from(python)].into_iter().chain(["-I", "-c", pypi::HOSTS, index].map(OsString::from));
    let read: Vec<&Path> = certificates.map(Path::new).into_iter().collect();
    let environment: Vec<(&str, &str)> =
        certificates.map(|file| ("SSL_CERT_FILE", file)).into_iter().collect();
    let job = Job {
        command: command.chain(names).collect(),
        read: &read,
        reach: std::slice::from_ref(own),
        environment: &environment,
        ..Job::default()
    };
    let printed = work.cells.run(&job)?;
    let found = printed.lines().filter_map(registry::open_place);
    let found: Vec<Reach> = found.filter(|found| found.destination != own.destination).collect();
    if found.len() > MOST_HOSTS {
        let hosts = Work::reached(&found).join(", ");
        return Err(Failure::new(Ending::Other, format!("the index names too many hosts of files: {hosts}")));
    }
    Ok(found)
}

/// pip, as it is started each time.
struct Pip<'a> {
    work: &'a Work<'a>,
    python: &'a Path,
    index: &'a str,
    certificates: Option<&'a Path>,
    reach: &'a [Reach],
}

impl Pip<'_> {
    /// Installs; `into` is the interpreter of another environment than pip's own.
    fn run(
        &self,
        into: Option<&Path>,
        words: Vec<String>,
        write: &Path,
        read: &[&Path],
    ) -> Result<(), Failure> {
        let [module, pip, options @ ..] = pypi::INSTALL;
        let mut command = [OsString::from(self.python), module.into(), pip.into()].to_vec();
        if let Some(into) = into {
            command.extend([OsString::from("--python"), into.into()]);
        }
        command.extend(options.map(OsString::from));
        command.extend(["--index-url", self.index, "--only-binary", ":all:"].map(OsString::from));
        for name in &self.work.scripts() {
            command.extend(["--no-binary", name].map(OsString::from));
        }
        if let Some(file) = self.certificates {
            command.extend([OsString::from("--cert"), file.into()]);
        }
        command.extend(words.into_iter().map(OsString::from));
        let read: Vec<&Path> = read.iter().copied().chain(self.certificates).collect();
        let job = Job { command, write: &[write], read: &read, reach: self.reach, ..Job::default() };
        self.work.cells.run(&job).map(drop)
    }
}
