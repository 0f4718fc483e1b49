//! Knows where installations keep their parts, what belongs on the cell's `PATH`, and which programs install others.
//!
//! Neighbours: `finder` calls it. Never: shows a prefix that is shared by many programs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::interpreter::Family;
use super::view::View;
use super::{World, node};

/// Prefixes that hold software only, whose programs refer to each other by paths all over them.
const STORES: [&str; 3] = ["/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew"];
/// Prefixes of many unrelated programs: a program there is only its own file.
const PREFIXES: [&str; 5] = [".bun", ".cargo", ".deno", ".local", "go"];
/// Programs that fetch and install others for any user. A server that finds one may retry without a network for a
/// minute instead of going on without it. System package managers are not among them: they fail at once.
const INSTALLERS: [&str; 10] = ["corepack", "npm", "npx", "pip", "pip3", "pipx", "pnpm", "uv", "uvx", "yarn"];

/// Adds the installation that a dynamic program, free of links, belongs to, where there is one to be told. A program
/// that was not typed, but named in a file, brings less: the file's author must not choose a directory to be shown.
pub(super) fn want_installation(
    world: &World,
    view: &mut View<'_>,
    real: &Path,
    family: Option<Family>,
    typed: bool,
    environment: &mut BTreeMap<String, String>,
) {
    let files = &world.files;
    if let Some(store) = STORES.iter().find(|store| real.starts_with(store)) {
        view.want_shared(Path::new(store), "store of the package manager that the program comes from");
    }
    let Some(directory) = real.parent() else { return };
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    if files.is_dir(&directory.join("host/fxr")) {
        view.want_shared(directory, "the .NET runtime");
        return;
    }
    if typed && files.is_file(&directory.join(format!("{name}.dll"))) {
        view.want_source(directory, "directory of the .NET program");
        want_dotnet(world, view, environment);
        return;
    }
    let tool = directory.join(".store").join(&*name);
    if files.is_dir(&tool) {
        view.want(&tool, "the .NET tool");
        want_dotnet(world, view, environment);
        return;
    }
    let Some(prefix) = directory.parent().filter(|_| directory.ends_with("bin")) else { return };
    if files.is_file(&prefix.join("lib/modules")) || files.is_file(&prefix.join("lib/rt.jar")) {
        view.want_shared(prefix, "the Java runtime");
        want_java_configuration(files, view, prefix);
        return;
    }
    // node is one file; Python's installation is found by its own rules.
    let alone = matches!(family, Some(Family::Node | Family::NodeLike | Family::Python));
    let shared = prefix.starts_with("/usr")
        || prefix.file_name().and_then(OsStr::to_str).is_some_and(|name| PREFIXES.contains(&name));
    let trusted = typed || family.is_some();
    if trusted
        && !alone
        && !shared
        && ["lib", "libexec", "share"].iter().any(|part| files.is_dir(&prefix.join(part)))
    {
        match family {
            Some(_) => view.want_shared(prefix, "installation of the program"),
            None => view.want(prefix, "installation of the program"),
        };
    }
}

fn want_dotnet(world: &World, view: &mut View<'_>, environment: &mut BTreeMap<String, String>) {
    let configured = world.files.text(Path::new("/etc/dotnet/install_location"));
    let given = world.variables.get("DOTNET_ROOT").map(PathBuf::from);
    let at_home = world.home.as_ref().map(|home| home.join(".dotnet"));
    let places = ["/usr/lib/dotnet", "/usr/share/dotnet", "/usr/lib64/dotnet"].map(PathBuf::from);
    let first_line = configured.lines().next().map(|line| PathBuf::from(line.trim()));
    let all = given.into_iter().chain(first_line).chain(at_home).chain(places);
    for root in all.filter(|root| root.is_absolute()) {
        if world.files.is_dir(&root.join("host/fxr")) && view.want_shared(&root, "the .NET runtime").is_some()
        {
            environment.insert("DOTNET_ROOT".to_owned(), root.to_string_lossy().into_owned());
            return;
        }
    }
}

/// Distributions keep a Java runtime's settings in `/etc/java-…`, and link to them.
fn want_java_configuration(files: &Files, view: &mut View<'_>, prefix: &Path) {
    for part in ["conf", "conf/security", "lib", "lib/security"] {
        let directory = prefix.join(part);
        for (name, _) in files.entries(&directory).into_iter().filter(|(_, link)| *link) {
            let path = directory.join(name);
            let Ok(found) = files.resolve(&path) else { continue };
            let mut below = found.real.strip_prefix("/etc").into_iter().flatten();
            let whole = below.next().filter(|name| name.as_encoded_bytes().starts_with(b"java"));
            if let Some(name) = whole {
                view.want_shared(&Path::new("/etc").join(name), "settings of the Java runtime");
            } else if ["/etc/ssl", "/etc/pki"].iter().any(|top| found.real.starts_with(top)) {
                view.want_shared(&found.real, "certificates of the Java runtime");
            }
            view.want_links(&found);
        }
    }
}

/// The cell's `PATH`: the host's, as far as it leads to something there, then the programs' own directories.
pub(super) fn path(
    files: &Files,
    view: &mut View<'_>,
    search: &[PathBuf],
    homes: &[PathBuf],
) -> Vec<PathBuf> {
    let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut seen = BTreeSet::new();
    let mut path = Vec::new();
    for place in search.iter().chain(homes).chain(&usual) {
        let Ok(found) = files.resolve(place) else { continue };
        if found.meta.is_dir() && view.reaches(&found.real) && seen.insert(found.real.clone()) {
            view.want_links(&found);
            path.push(place.clone());
        }
    }
    path
}

/// Covers programs that install others, unless one of them was asked for.
pub(super) fn hide_installers(files: &Files, view: &mut View<'_>, path: &[PathBuf], programs: &[PathBuf]) {
    let mut looked_at = BTreeSet::new();
    for place in path {
        let Ok(directory) = files.resolve(place) else { continue };
        if !looked_at.insert(directory.real.into_os_string()) {
            continue;
        }
        for name in files.those_in(place, &INSTALLERS) {
            let Ok(found) = files.resolve(&place.join(name)) else { continue };
            // The file alone would leave the package importable and its other links working.
            let package = node::package_around(&found.real).and_then(|package| files.resolve(&package).ok());
            let covered = package.unwrap_or(found);
            if view.shows(&covered.real) && !programs.iter().any(|program| program.starts_with(&covered.real))
            {
                view.hide(
                    &covered,
                    "it installs other programs, and keeps a server waiting when there is no network",
                );
            }
        }
    }
}
