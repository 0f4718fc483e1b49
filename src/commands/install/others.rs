//! Registries that only another package manager's settings name: who runs `uvx` or `bunx` with a registry of their own must not get
//! another's package of the same name, from the registry that pip or npm asks.
//!
//! Neighbours: `install` asks before it fetches for a runner; `registry` knows whom pip and npm ask. Never: fetches from one of these.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::registry::plain;
use crate::diag::Failure;
use crate::exit_codes::Ending;

/// Of a file of settings.
const MOST: u64 = 1 << 20;
/// What ends an address in a file of settings.
const ENDS: [char; 9] = ['"', '\'', ' ', '\t', ',', ']', '}', '#', ';'];

/// Another package manager, and where it is told of registries.
#[derive(Debug)]
struct Manager {
    programs: &'static [&'static str],
    variables: &'static [&'static str],
    /// Below the home directory, and below the one for settings; or anywhere.
    home: &'static [&'static str],
    settings: &'static [&'static str],
    system: &'static [&'static str],
}

const MANAGERS: [Manager; 4] = [
    Manager {
        programs: &["uv", "uvx"],
        variables: &["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"],
        home: &[],
        settings: &["uv/uv.toml"],
        system: &["/etc/uv/uv.toml", "/etc/xdg/uv/uv.toml"],
    },
    Manager {
        programs: &["bun", "bunx"],
        variables: &["BUN_CONFIG_REGISTRY"],
        home: &[".bunfig.toml"],
        settings: &[".bunfig.toml"],
        system: &[],
    },
    Manager {
        programs: &["yarn"],
        variables: &["YARN_NPM_REGISTRY_SERVER", "YARN_REGISTRY"],
        home: &[".yarnrc.yml", ".yarnrc"],
        settings: &[],
        system: &[],
    },
    Manager {
        programs: &["pnpm", "pnpx"],
        variables: &["PNPM_CONFIG_REGISTRY"],
        home: &[],
        settings: &["pnpm/rc", "pnpm/config.yaml"],
        system: &[],
    },
];

#[derive(Debug, thiserror::Error)]
enum Other {
    #[error("cannot read `{}`, which may name a registry", .0.display())]
    Unread(PathBuf, #[source] io::Error),
    #[error(
        "{place} names the registry `{address}`, and {fetcher}, with which toolcell fetches, asks another one"
    )]
    Named { place: String, address: String, fetcher: &'static str },
}

/// Is every registry that the settings of a command's package manager name one of those that are asked? `asked` is made where there
/// is something to compare.
pub(super) fn check(
    command: &str,
    (fetcher, typed): (&'static str, &str),
    asked: impl FnOnce() -> Result<Vec<String>, Failure>,
) -> Result<(), Failure> {
    let program = Path::new(command).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(manager) = MANAGERS.iter().find(|manager| manager.programs.contains(&program)) else {
        return Ok(());
    };
    let named = manager.named().map_err(|(path, error)| {
        let hint = format!("make it a file that you can read; or fetch the package before: {typed}");
        Failure::new(Ending::Other, Other::Unread(path, error)).hint(Some(hint))
    })?;
    if named.is_empty() {
        return Ok(());
    }
    let asked: Vec<String> = asked()?.iter().flat_map(|address| addresses(address)).collect();
    let Some((place, address)) = named.into_iter().find(|(_, address)| !asked.contains(address)) else {
        return Ok(());
    };
    let hint = format!(
        "name it in the settings of {fetcher} too; or, if the package is in the registry that {fetcher} asks: {typed}"
    );
    Err(Failure::new(Ending::Other, Other::Named { place, address, fetcher }).hint(Some(hint)))
}

impl Manager {
    /// All addresses in its settings, and where they are.
    fn named(&self) -> Result<Vec<(String, String)>, (PathBuf, io::Error)> {
        let mut named = Vec::new();
        for variable in self.variables {
            let value = std::env::var_os(variable).unwrap_or_default();
            let place = format!("`{variable}`");
            named.extend(addresses(&value.to_string_lossy()).map(|address| (place.clone(), address)));
        }
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let settings =
            std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let settings = settings.or_else(|| home.as_ref().map(|home| home.join(".config")));
        let below = |top: Option<PathBuf>, names: &'static [&'static str]| {
            names.iter().filter_map(move |name| Some(top.as_ref()?.join(name)))
        };
        let system = self.system.iter().map(PathBuf::from);
        for path in below(home, self.home).chain(below(settings, self.settings)).chain(system) {
            let text = read(&path).map_err(|error| (path.clone(), error))?;
            let place = format!("`{}`", path.display());
            named.extend(addresses(&text).map(|address| (place.clone(), address)));
        }
        Ok(named)
    }
}

/// A file's text; of one that is not there none.
fn read(path: &Path) -> io::Result<String> {
    match path.metadata() {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(io::ErrorKind::InvalidInput.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    }
    let mut text = String::new();
    if File::open(path)?.take(MOST + 1).read_to_string(&mut text)? as u64 > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Every address in a text, outside of comments, as it can be compared and shown.
fn addresses(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    lines.flat_map(|line| {
        // A scheme can be written in capitals.
        let found: Vec<usize> = line.to_ascii_lowercase().match_indices("http").map(|(at, _)| at).collect();
        let addresses = found.into_iter().filter_map(|at| {
            let address = line.get(at..)?.split(ENDS).next()?;
            let scheme = address.split_once("://")?.0.to_ascii_lowercase();
            ["http", "https"].contains(&scheme.as_str()).then(|| plain(address))
        });
        addresses.collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_settings_is_found_but_for_comments() {
        for (text, found) in [
            ("", &[][..]),
            ("# index-url = \"https://a.example\"\n  ; registry=https://a.example", &[]),
            ("[[index]]\nurl = \"https://a.example/simple/\" # https", &["https://a.example/simple"]),
            (
                "extra-index-url = [\n'http://a.example:80/x', \"https://u:p@B.example/y\"]",
                &["http://a.example:80/x", "https://b.example/y"],
            ),
            (
                "own=https://a.example/x other=https://b.example",
                &["https://a.example/x", "https://b.example"],
            ),
            ("npmRegistryServer: https://a.example", &["https://a.example"]),
            ("é=HTTPS://A.example/X", &["https://a.example/X"]),
            ("httpTimeout: 60000", &[]),
        ] {
            assert_eq!(addresses(text).collect::<Vec<_>>(), found, "{text}");
        }
    }
}
