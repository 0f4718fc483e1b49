//! Sees through the small programs that version managers put on `PATH`: which program would one of them run?
//!
//! Neighbours: `finder` asks for each program that it locates. Never: runs a version manager or asks a shell.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::World;
use super::files::Files;

/// What stands behind a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// The program itself.
    Itself,
    /// Another program, which the version manager would run.
    Program(PathBuf),
    /// The version manager would go on along `PATH`.
    Next,
    /// It cannot be told; what to do instead.
    Unknown(String),
}

/// Looks behind a program that exists.
pub(super) fn behind(world: &World, path: &Path) -> Behind {
    let files = &world.files;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Behind::Itself;
    };
    let Some(root) = directory.parent() else { return Behind::Itself };
    let target = files.resolve(path).map(|found| found.real).unwrap_or_default();
    let target_name = target.file_name().and_then(|n| n.to_str()).unwrap_or_default();

    if directory.ends_with("shims") {
        if files.is_dir(&root.join("versions")) {
            return rbenv_like(world, root, name);
        }
        if files.is_dir(&root.join("installs")) {
            return installs(world, root, name, &files.text(path));
        }
    }
    if target_name.starts_with("volta-shim") {
        return volta(files, root, name);
    }
    if target_name == "rustup" && name != "rustup" {
        return rustup(world, name);
    }
    Behind::Itself
}

/// pyenv, rbenv, nodenv and goenv: one shape.
fn rbenv_like(world: &World, root: &Path, name: &str) -> Behind {
    let files = &world.files;
    let manager = root.file_name().and_then(|n| n.to_str()).unwrap_or_default().trim_start_matches('.');
    let (variable, file) = match manager {
        "rbenv" => ("RBENV_VERSION", ".ruby-version"),
        "nodenv" => ("NODENV_VERSION", ".node-version"),
        "goenv" => ("GOENV_VERSION", ".go-version"),
        _ => ("PYENV_VERSION", ".python-version"),
    };
    let wanted = world
        .variables
        .get(variable)
        .cloned()
        .or_else(|| upward(&world.cwd, |directory| some_text(files, &directory.join(file))))
        .or_else(|| some_text(files, &root.join("version")))
        .unwrap_or_else(|| "system".to_owned());
    let versions = root.join("versions");
    for version in wanted.split([':', ' ', '\t', '\n', '\r']).filter(|word| plain(word)) {
        if version == "system" {
            return Behind::Next;
        }
        let exact = Some(version.to_owned()).filter(|v| files.is_dir(&versions.join(v)));
        let Some(version) = exact.or_else(|| newest(files, &versions, version)) else { continue };
        let program = versions.join(version).join("bin").join(name);
        if files.is_file(&program) {
            return Behind::Program(program);
        }
    }
    Behind::Unknown(format!(
        "`{name}` is a link of {manager}, whose chosen version ({}) has no such program: \
         choose one that has, or name the program itself in `{}`",
        wanted.split_whitespace().collect::<Vec<_>>().join(" "),
        versions.display()
    ))
}

/// asdf and mise: one directory a tool, one below it a version.
fn installs(world: &World, root: &Path, name: &str, shim: &str) -> Behind {
    let files = &world.files;
    let installs = root.join("installs");
    let mut wanted: Vec<(String, String)> = Vec::new();
    let mut add =
        |text: &str, toml: bool| wanted.extend(if toml { mise_tools(text) } else { tool_versions(text) });
    for directory in world.cwd.ancestors().chain(world.home.as_deref()) {
        for (file, toml) in [("mise.toml", true), (".mise.toml", true), (".tool-versions", false)] {
            add(&files.text(&directory.join(file)), toml);
        }
    }
    if let Some(home) = &world.home {
        add(&files.text(&home.join(".config/mise/config.toml")), true);
    }
    // asdf writes into the link which versions have the program; they are good enough when just one has.
    let listed: Vec<(String, String)> =
        shim.lines().filter_map(|line| line.strip_prefix("# asdf-plugin:")).flat_map(tool_versions).collect();
    if let [only] = listed.as_slice() {
        wanted.push(only.clone());
    }
    for (tool, version) in wanted {
        let aliases: &[&str] = match tool.as_str() {
            "node" | "nodejs" => &["node", "nodejs"],
            "go" | "golang" => &["go", "golang"],
            other => &[other],
        };
        for tool in aliases {
            let versions = installs.join(tool);
            let exact = Some(version.clone()).filter(|v| files.is_dir(&versions.join(v)));
            let Some(version) = exact.or_else(|| newest(files, &versions, &version)) else { continue };
            for bin in ["bin", "", ".npm/bin", "go/bin"] {
                let program = versions.join(&version).join(bin).join(name);
                if files.is_file(&program) {
                    return Behind::Program(program);
                }
            }
        }
    }
    Behind::Unknown(format!(
        "which version `{name}` of the version manager would run cannot be told: name the program itself, \
         it is in `{}`",
        installs.display()
    ))
}

fn tool_versions(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .filter(|(tool, version)| plain(tool) && plain(version))
        .collect()
}

fn mise_tools(text: &str) -> Vec<(String, String)> {
    let Ok(table) = DeTable::parse(text) else { return Vec::new() };
    let Some(tools) = table.get_ref().get("tools").and_then(|tools| tools.get_ref().as_table()) else {
        return Vec::new();
    };
    tools
        .iter()
        .filter_map(|(tool, value)| {
            let value = value.get_ref();
            let first = value.as_array().and_then(|list| list.first()).map_or(value, |first| first.get_ref());
            let version = first.get("version").map_or(first, |version| version.get_ref()).as_str()?;
            let tool: &str = tool.get_ref();
            (plain(tool) && plain(version)).then(|| (tool.to_owned(), version.to_owned()))
        })
        .collect()
}

fn volta(files: &Files, root: &Path, name: &str) -> Behind {
    let image = root.join("tools/image");
    let json = |path: PathBuf| serde_json::from_str::<serde_json::Value>(&files.text(&path)).ok();
    let own = json(root.join("tools/user/bins").join(format!("{name}.json")));
    let package = own.as_ref().and_then(|bin| bin.get("package")?.as_str()).filter(|p| !p.contains(".."));
    if let Some(package) = package {
        let program = image.join("packages").join(package).join("bin").join(name);
        if files.is_file(&program) {
            return Behind::Program(program);
        }
    }
    let platform = json(root.join("tools/user/platform.json"));
    let version =
        platform.as_ref().and_then(|p| p.get("node")?.get("runtime")?.as_str()).filter(|v| plain(v));
    let program = version.map(|version| image.join("node").join(version).join("bin").join(name));
    match program.filter(|program| files.is_file(program)) {
        Some(program) => Behind::Program(program),
        None => Behind::Unknown(format!(
            "which `{name}` volta would run cannot be told: name the program itself, it is in `{}`",
            image.display()
        )),
    }
}

fn rustup(world: &World, name: &str) -> Behind {
    let files = &world.files;
    let home = world.variables.get("RUSTUP_HOME").map(PathBuf::from);
    let Some(root) = home.or_else(|| world.home.as_ref().map(|home| home.join(".rustup"))) else {
        return Behind::Itself;
    };
    let settings = files.text(&root.join("settings.toml"));
    let default = DeTable::parse(&settings)
        .ok()
        .and_then(|table| Some(table.get_ref().get("default_toolchain")?.get_ref().as_str()?.to_owned()));
    let toolchain = world.variables.get("RUSTUP_TOOLCHAIN").cloned().or(default).filter(|name| plain(name));
    let toolchains = root.join("toolchains");
    let chosen = toolchain.and_then(|t| {
        if files.is_dir(&toolchains.join(&t)) { Some(t) } else { with_dash(files, &toolchains, &t) }
    });
    match chosen.map(|t| toolchains.join(t).join("bin").join(name)).filter(|program| files.is_file(program)) {
        Some(program) => Behind::Program(program),
        None => Behind::Unknown(format!(
            "which `{name}` rustup would run cannot be told: name the program itself, it is in `{}`",
            toolchains.display()
        )),
    }
}

fn with_dash(files: &Files, directory: &Path, prefix: &str) -> Option<String> {
    let names = files.names(directory).into_iter().filter_map(|name| name.into_string().ok());
    names.into_iter().find(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-')))
}

/// The highest version that begins with `prefix` and a dot, e.g. `3.11.7` for `3.11`.
fn newest(files: &Files, versions: &Path, prefix: &str) -> Option<String> {
    files
        .names(versions)
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
        .max_by_key(|name| name.split('.').map(|n| n.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>())
}

/// The first answer going up from a directory.
pub(super) fn upward<T>(from: &Path, mut ask: impl FnMut(&Path) -> Option<T>) -> Option<T> {
    from.ancestors().find_map(&mut ask)
}

fn some_text(files: &Files, path: &Path) -> Option<String> {
    Some(files.text(path)).filter(|text| !text.trim().is_empty())
}

/// A name that is one path component: what a file says must not lead elsewhere.
fn plain(word: &str) -> bool {
    !word.is_empty() && word != ".." && word != "." && !word.contains('/')
}
