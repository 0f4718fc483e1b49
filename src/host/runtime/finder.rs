//! Follows a command from its name to the last interpreter, as the kernel and the shells in between would.
//!
//! Neighbours: `script`, `interpreter` and `elf` read what it meets; `python`, `node`, `libraries` and `places` add
//! what one kind of runtime needs; `view` collects. Never: runs what it follows.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::files::{Files, Resolved};
use super::interpreter::{Family, Input};
use super::managers::{self, Behind};
use super::script::{self, Shell};
use super::view::View;
use super::{NotFound, Runtime, World, elf, libraries, node, places, python, runners};

/// The reason that has a hint of its own.
pub(super) const NO_EXECUTE_BIT: &str = "it has no execute permission";
/// Longer chains of interpreters and wrappers than this are taken for a loop; the kernel itself stops at five.
const MAX_DEPTH: u32 = 8;
/// More programs than a wrapper has to choose from: a script could name any number.
const MAX_STEPS: u32 = 64;
/// As much of a script as is searched for the commands that it hands over to.
const HEAD: u64 = 64 * 1024;
/// As much of a program in machine code as tells what it is.
const ELF_START: u64 = 16;
/// Where the kernel and libc look when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Source directories of these names hold programs of many projects: being in one says nothing about neighbours.
const PROGRAM_DIRECTORIES: [&str; 4] = ["bin", "sbin", ".bin", "Scripts"];

/// How far a search has come, and whose word it follows. What a file says may only lead to interpreters and to what
/// is shown anyway: the file may be hostile, and must not choose what of the host its own cell sees.
#[derive(Debug, Clone, Copy)]
struct Step {
    depth: u32,
    /// The program was named by the person.
    program: bool,
    /// So were its arguments.
    arguments: bool,
}

impl Step {
    fn below(self, program: bool, arguments: bool) -> Self {
        Self { depth: self.depth + 1, program, arguments }
    }
}

/// The state of one search.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    world: &'a World,
    view: View<'a>,
    /// Host `PATH`, in which a version manager's directory is replaced by the one it stands for.
    search: Vec<PathBuf>,
    /// Directories of the programs that were followed.
    homes: Vec<PathBuf>,
    /// Programs that were followed, free of links.
    programs: Vec<PathBuf>,
    /// Scripts that the person named, free of links.
    scripts: Vec<PathBuf>,
    /// How many programs were followed.
    steps: u32,
    environment: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    hints: Vec<String>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let search = world.path.as_deref().unwrap_or(DEFAULT_PATH).split(':');
        Self {
            world,
            view: View::new(world),
            // An empty or relative entry would mean the working directory, which a client chooses.
            search: search.map(PathBuf::from).filter(|place| place.is_absolute()).collect(),
            homes: Vec::new(),
            programs: Vec::new(),
            scripts: Vec::new(),
            steps: 0,
            environment: BTreeMap::new(),
            cwd: None,
            hints: Vec::new(),
        }
    }

    pub(super) fn find(mut self, command: &[String]) -> Result<Runtime, NotFound> {
        let Some((name, arguments)) = command.split_first() else {
            return Err(NotFound::Missing { name: String::new(), searched: Vec::new() });
        };
        let program = self.locate(name)?;
        self.follow(&program, arguments, Step { depth: 0, program: true, arguments: true })?;

        let mut argv = command.to_vec();
        let typed_means_program = Path::new(name) == program || !name.contains('/');
        if let Some(first) = argv.first_mut().filter(|_| !typed_means_program) {
            *first = program.to_string_lossy().into_owned();
        }
        let path = places::path(&self.world.files, &mut self.view, &self.search, &self.homes);
        places::hide_installers(&self.world.files, &mut self.view, &path, &self.programs);
        let lists = self.view.finish();
        Ok(Runtime {
            program,
            argv,
            view: lists.view,
            own: lists.own,
            links: lists.links,
            hide: lists.hide,
            path,
            environment: self.environment,
            cwd: self.cwd,
            hints: self.hints,
        })
    }

    fn files(&self) -> &'a Files {
        &self.world.files
    }

    /// The absolute path that a name stands for, seen through version managers.
    fn locate(&mut self, name: &str) -> Result<PathBuf, NotFound> {
        if name.contains('/') {
            let path = self.absolute(Path::new(name));
            if self.files().resolve(&path).is_err_and(|error| missing(&error)) {
                return Err(NotFound::Missing { name: name.to_owned(), searched: vec![path] });
            }
            return match managers::behind(self.world, &path) {
                Behind::Itself => Ok(path),
                Behind::Program(program) => Ok(self.replace(&path, program)),
                Behind::Next => match path.file_name().and_then(|n| n.to_str()) {
                    Some(name) => self.locate(name),
                    None => Ok(path),
                },
                Behind::Unknown(hint) => Err(unknown_version(name, hint)),
            };
        }
        let mut refused = None;
        for place in self.search.clone() {
            if name.is_empty() {
                break;
            }
            let path = place.join(name);
            let Ok(found) = self.files().resolve(&path) else { continue };
            if !found.executable() {
                let reason = if found.meta.is_dir() { "it is a directory" } else { NO_EXECUTE_BIT };
                refused.get_or_insert(NotFound::NotExecutable { path, reason: reason.to_owned() });
                continue;
            }
            match managers::behind(self.world, &path) {
                Behind::Itself => return Ok(path),
                Behind::Program(program) => return Ok(self.replace(&path, program)),
                Behind::Next => {}
                Behind::Unknown(hint) => return Err(unknown_version(name, hint)),
            }
        }
        Err(refused
            .unwrap_or_else(|| NotFound::Missing { name: name.to_owned(), searched: self.search.clone() }))
    }

    /// Puts the real program's directory where the version manager's stands in `PATH`.
    fn replace(&mut self, stand_in: &Path, program: PathBuf) -> PathBuf {
        if let (Some(from), Some(to)) = (stand_in.parent(), program.parent()) {
            for place in self.search.iter_mut().filter(|place| place.as_path() == from) {
                *place = to.to_path_buf();
            }
        }
        program
    }

    /// Makes a path absolute. A way up is resolved first, because the cell may lack the directories on it.
    fn absolute(&self, path: &Path) -> PathBuf {
        let joined: PathBuf = self.world.cwd.join(path).components().collect();
        if !joined.components().any(|part| part == Component::ParentDir) {
            return joined;
        }
        let (Some(parent), Some(name)) = (joined.parent(), joined.file_name()) else {
            return self.files().resolve(&joined).map_or(joined, |found| found.real);
        };
        self.files().resolve(parent).map_or_else(|_missing| joined.clone(), |found| found.real.join(name))
    }

    /// Adds what executing the file at `path` with these arguments needs.
    fn follow(&mut self, path: &Path, arguments: &[String], step: Step) -> Result<(), NotFound> {
        let not_executable = |reason: String| NotFound::NotExecutable { path: path.to_path_buf(), reason };
        self.steps += 1;
        if step.depth > MAX_DEPTH || self.steps > MAX_STEPS {
            return Err(not_executable("its interpreters form a loop".to_owned()));
        }
        let found = self.files().resolve(path).map_err(|error| not_executable(text(&error)))?;
        if found.meta.is_dir() {
            return Err(not_executable("it is a directory".to_owned()));
        }
        if !found.executable() {
            return Err(not_executable(NO_EXECUTE_BIT.to_owned()));
        }
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.refuse(name, path, &found, arguments)?;
        let files = self.files();
        let read = |limit| files.head(&found.real, limit).map_err(|error| not_executable(text(&error)));
        let mut head = read(ELF_START)?;
        let machine_code = head.starts_with(b"\x7fELF");
        if !machine_code && !step.program && !self.harmless(name, &found.real) {
            return Err(NotFound::Unsuitable {
                name: path.display().to_string(),
                reason: "another file names it, and that file cannot decide which scripts of yours are shown"
                    .to_owned(),
                hint: format!("name it in the command itself, or add `--read {}`", path.display()),
            });
        }
        let why =
            if step.depth == 0 { "the program" } else { "interpreter or program that the command leads to" };
        let interpreter = machine_code && Self::family(path, &found.real).is_some();
        let shown = if interpreter { self.view.want_shared(path, why) } else { self.view.want(path, why) };
        if shown.is_none() {
            return Err(not_executable("it lies in a directory that is never shown to a cell".to_owned()));
        }
        self.homes.extend(path.parent().map(Path::to_path_buf));
        self.programs.push(found.real.clone());
        if machine_code {
            return self.object(path, &found, &head, arguments, step);
        }
        head = read(HEAD)?;
        let Some((interpreter, argument)) = script::first_line(&head) else {
            let reason = "it is neither a program nor a script that names its interpreter in the first line";
            return Err(not_executable(reason.to_owned()));
        };
        if step.program {
            self.scripts.push(found.real.clone());
        }
        python::want_around(self.files(), &mut self.view, &mut self.hints, path);
        if node::modules_around(&found.real).is_some() {
            node::want(self.files(), &mut self.view, &found.real);
        }
        self.interpreter(path, &interpreter, argument, arguments, step)
    }

    /// May a file lead to this script, whose content is then shown? It may when it is shown anyway, is a package's
    /// program, or is one of the known interpreters.
    fn harmless(&self, name: &str, real: &Path) -> bool {
        let system = ["/usr", "/bin", "/sbin"].iter().any(|top| real.starts_with(top));
        system || self.view.shows(real) || Family::of(name).is_some() || node::modules_around(real).is_some()
    }

    /// The kind of interpreter that a program is, by its names.
    fn family(path: &Path, real: &Path) -> Option<Family> {
        let name = |path: &Path| path.file_name().and_then(|name| Family::of(name.to_str()?));
        name(path).or_else(|| name(real))
    }

    fn refuse(
        &self,
        name: &str,
        path: &Path,
        found: &Resolved,
        arguments: &[String],
    ) -> Result<(), NotFound> {
        let unsuitable = |reason: &str, hint: String| {
            Err(NotFound::Unsuitable { name: name.to_owned(), reason: reason.to_owned(), hint })
        };
        if path.starts_with("/snap") || found.real.starts_with("/snap") || found.real.ends_with("bin/snap") {
            let hint = format!("install `{name}` from another source than snap, and name that program");
            return unsuitable("snap programs are started by a privileged service outside of the cell", hint);
        }
        if let Some((reason, hint)) = runners::refusal(self.world, name, arguments) {
            return unsuitable(&reason, hint);
        }
        Ok(())
    }

    /// Follows the interpreter that a script's first line names, with one argument at most.
    fn interpreter(
        &mut self,
        script: &Path,
        name: &str,
        argument: Option<String>,
        arguments: &[String],
        step: Step,
    ) -> Result<(), NotFound> {
        let path = PathBuf::from(name);
        let broken = |reason: String| NotFound::NotExecutable { path: script.to_path_buf(), reason };
        if !path.is_absolute() {
            return Err(broken(format!(
                "the interpreter `{name}` in its first line is not an absolute path"
            )));
        }
        let located = self.locate(name).map_err(|error| match error {
            NotFound::Missing { .. } => broken(format!("its interpreter `{name}` does not exist")),
            other => other,
        })?;
        if located != path {
            // The kernel takes the path as it stands in the script, so it has to lead to the real program there.
            self.view.stand_in(&path, &located);
        }
        // With options in the first line, the person's own arguments may turn into values of the file's options.
        let env = located.file_name().is_some_and(|name| name == "env");
        let plain =
            argument.as_ref().is_none_or(|word| env && !word.starts_with('-') && !word.contains([' ', '=']));
        let mut rest: Vec<String> = argument.into_iter().collect();
        rest.push(script.to_string_lossy().into_owned());
        rest.extend_from_slice(arguments);
        self.follow(&located, &rest, step.below(false, step.arguments && plain))
    }

    /// A program in machine code: its loader, libraries and installation, and what its arguments make it load.
    fn object(
        &mut self,
        path: &Path,
        found: &Resolved,
        head: &[u8],
        arguments: &[String],
        step: Step,
    ) -> Result<(), NotFound> {
        let broken = |reason: String| NotFound::NotExecutable { path: path.to_path_buf(), reason };
        if head.get(8..10) == Some(b"AI") {
            return Err(NotFound::Unsuitable {
                name: path.display().to_string(),
                reason: "an AppImage mounts itself when it starts".to_owned(),
                hint: format!(
                    "unpack it with `{} --appimage-extract` and name `squashfs-root/AppRun`",
                    path.display()
                ),
            });
        }
        let file = self.files().open(&found.real).map_err(|error| broken(text(&error)))?;
        let object =
            elf::read(&|offset, length| file.at(offset, length)).map_err(|why| broken(why.to_owned()))?;
        let dynamic = object.interpreter.is_some() || !object.needed.is_empty();
        if let Some(loader) = &object.interpreter {
            self.view.want_system();
            let head = self.files().head(Path::new(loader), 4).unwrap_or_default();
            if head != b"\x7fELF"
                || self.view.want_shared(Path::new(loader), "loader that the program names").is_none()
            {
                return Err(broken(format!("its loader `{loader}` does not exist")));
            }
        }
        for library in libraries::want(self.files(), &mut self.view, &found.real, object) {
            self.hints.push(format!(
                "library `{library}` of `{}` was not found: if the program does not start, add `--read` with the \
                 directory that holds it",
                path.display()
            ));
        }
        let family = Self::family(path, &found.real);
        if dynamic {
            places::want_installation(
                self.world,
                &mut self.view,
                &found.real,
                family,
                step.program,
                &mut self.environment,
            );
        }
        if family == Some(Family::Python) {
            let home = self.world.home.as_deref();
            if let Some(base) =
                python::want(self.files(), &mut self.view, &mut self.hints, path, &found.real, home)
            {
                self.environment.insert("PYTHONUSERBASE".to_owned(), base.to_string_lossy().into_owned());
            }
        }
        match family {
            None => Ok(()),
            Some(Family::Env) => {
                let command = script::after_env(arguments);
                let Some((name, rest)) = command.split_first() else { return Ok(()) };
                let program = self.locate(name)?;
                // A first line that names a program through `env` names it no less than by its path.
                let typed = step.program && step.arguments;
                self.follow(&program, rest, step.below(typed, step.arguments))
            }
            Some(family) => {
                for input in family.inputs(arguments) {
                    self.input(family, &input, step);
                }
                Ok(())
            }
        }
    }

    /// Adds what an interpreter loads. A file that is not there is the interpreter's to report.
    fn input(&mut self, family: Family, input: &Input, step: Step) {
        match input {
            Input::Script(name) => self.source(family, name, step),
            Input::Line(line) => {
                let commands = Shell::of(Path::new("sh"), self.world.home.as_deref()).commands(line);
                self.handed_over(commands, step.below(step.arguments, step.arguments));
            }
            Input::File(name) | Input::Module(name) | Input::Package(name) if !step.arguments => {
                self.hints.push(format!(
                    "a script's first line makes its interpreter load `{name}`: if it is not found, add `--read` with \
                     the directory that holds it"
                ));
            }
            Input::File(name) => {
                let path = self.named(name);
                self.want_or_hint(&path, "named on the command line");
            }
            Input::Module(name) => {
                let first = name.split('.').next().unwrap_or(name);
                let cwd = self.world.cwd.clone();
                let package = cwd.join(first);
                let file = cwd.join(format!("{first}.py"));
                if !first.is_empty() && (self.files().is_dir(&package) || self.files().is_file(&file)) {
                    self.cwd = Some(cwd.clone());
                    if self.view.want_source(&cwd, "directory of the module").is_none() {
                        self.view.want(&package, "the module");
                        self.view.want(&file, "the module");
                    }
                }
            }
            Input::Package(name) => {
                let relative = name.starts_with('.');
                if let Some(path) = super::arguments::file_url(name) {
                    self.source(family, &path.to_string_lossy(), step);
                } else if relative || name.starts_with('/') {
                    self.source(family, name, step);
                } else if !name.contains(':') {
                    let cwd = self.world.cwd.clone();
                    if node::want_package(self.files(), &mut self.view, &cwd, name) {
                        self.cwd = Some(cwd);
                    }
                }
            }
        }
    }

    /// The path of an argument; one that is relative ties the cell to the working directory.
    fn named(&mut self, name: &str) -> PathBuf {
        if !name.starts_with('/') {
            self.cwd = Some(self.world.cwd.clone());
        }
        self.world.cwd.join(name)
    }

    fn want_or_hint(&mut self, path: &Path, why: &str) {
        if self.files().resolve(path).is_ok() && self.view.want(path, why).is_none() {
            self.hints.push(format!("`{}` is shared with other programs, so it is not shown whole: add `--read` with what the program needs of it", path.display()));
        }
    }

    /// Adds a script and what lies beside it that it imports.
    fn source(&mut self, family: Family, name: &str, step: Step) {
        let node = matches!(family, Family::Node | Family::NodeLike);
        let path = self.named(name);
        let endings: &[&str] = if node { &["", ".js", ".mjs", ".cjs"] } else { &[""] };
        let candidate = |ending: &&str| {
            let path = PathBuf::from(format!("{}{ending}", path.display()));
            Some((self.files().resolve(&path).ok()?, path))
        };
        let Some((found, path)) = endings.iter().find_map(candidate) else {
            if name.contains("://") {
                self.hints
                    .push(format!("`{name}` would be fetched over the network, which a cell does not have"));
            }
            return;
        };
        // An option, a subcommand or data that only looks like a script when something of that name is there.
        if !found.meta.is_file() && !found.meta.is_dir() {
            return;
        }
        if !step.arguments && !self.scripts.contains(&found.real) {
            if !self.view.shows(&found.real) {
                self.hints.push(format!(
                    "a script hands over to `{0}`, which the command does not name: add `--read {0}` with what it needs",
                    found.real.display()
                ));
            } else if family == Family::Shell && found.meta.is_file() {
                self.wrapper(&path, &found.real, step);
            }
            return;
        }
        if found.meta.is_dir() {
            let shown = match family {
                Family::Node | Family::NodeLike => {
                    node::want(self.files(), &mut self.view, &found.real.join("index.js"))
                }
                _ => self.view.want_source(&path, "directory of the script").is_some(),
            };
            self.view.want_links(&found);
            if !shown {
                self.want_or_hint(&path, "directory of the script");
            }
            return;
        }
        if self.view.want(&path, "the script").is_none() {
            self.hints
                .push(format!("`{}` lies in a directory that is never shown to a cell", path.display()));
            return;
        }
        python::want_around(self.files(), &mut self.view, &mut self.hints, &path);
        let beside = match family {
            Family::Node | Family::NodeLike => node::want(self.files(), &mut self.view, &found.real),
            _ => self.beside(&found.real),
        };
        if !beside {
            let directory = found.real.parent().unwrap_or(Path::new("/"));
            self.hints.push(format!(
                "`{}` is shared with other programs, so only the script `{}` of it is shown: if the script needs \
                 other files, put it into a directory of its own or add `--read` with them",
                directory.display(),
                found.real.display()
            ));
        }
        if family == Family::Shell {
            self.wrapper(&path, &found.real, step);
        }
    }

    /// Adds the directory of a script; false when it is a shared one.
    fn beside(&mut self, real: &Path) -> bool {
        let Some(directory) = real.parent() else { return false };
        let name = directory.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        PROGRAM_DIRECTORIES.contains(&name)
            || self.view.want_source(directory, "directory of the script").is_some()
    }

    /// Follows the commands that a shell script replaces itself with.
    fn wrapper(&mut self, path: &Path, real: &Path, step: Step) {
        let commands = Shell::of(path, self.world.home.as_deref()).execs(&self.files().text(real));
        self.handed_over(commands, step.below(false, false));
    }

    /// Follows the commands of a shell script. Not all of them have to exist: the script chooses.
    fn handed_over(&mut self, commands: Vec<Vec<String>>, step: Step) {
        let mut problem = None;
        let mut followed = false;
        for command in commands {
            let Some((name, rest)) = command.split_first() else { continue };
            let result = self.locate(name).and_then(|program| self.follow(&program, rest, step));
            match result {
                Ok(()) => followed = true,
                Err(NotFound::Missing { .. }) => {}
                Err(error) => problem = Some(error),
            }
        }
        if let (false, Some(error)) = (followed, problem) {
            let hint = error.hint().map(|hint| format!(": {hint}")).unwrap_or_default();
            self.hints.push(format!("{error}{hint}"));
        }
    }
}

fn missing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

fn text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ELOOP) => "its symbolic links form a loop (ELOOP)".to_owned(),
        Some(libc::EACCES) => "permission denied (EACCES)".to_owned(),
        Some(libc::ENOENT) => "it does not exist (ENOENT)".to_owned(),
        _ => error.to_string(),
    }
}

fn unknown_version(name: &str, hint: String) -> NotFound {
    NotFound::Unsuitable {
        name: name.to_owned(),
        reason: "it stands for a program that a version manager chooses".to_owned(),
        hint,
    }
}
