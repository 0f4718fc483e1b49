//! What pip is told, and what it says of what it would install.
//!
//! Neighbours: `commands::install` starts pip in a cell. Never: takes a package without a hash of its archive.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::package::Package;
use super::seal;
use crate::lock::Pinned;

/// Of an answer of pip's, and of a file in a package.
const MOST: u64 = 64 << 20;
/// The file in which a package names its programs (<https://packaging.python.org/specifications/entry-points/>).
const ENTRY_POINTS: &str = "entry_points.txt";

/// The file that says which installation an environment belongs to.
const SETTINGS: &str = "pyvenv.cfg";

/// Options under which pip fetches, reads no settings of anybody's, and builds nothing.
pub const INSTALL: [&str; 8] = [
    "-m",
    "pip",
    "--isolated",
    "--disable-pip-version-check",
    "--no-input",
    "--no-cache-dir",
    "--quiet",
    "install",
];

/// Prints where an index keeps the files of packages: what its pages say beside their addresses is of those who publish there. The
/// cell can reach only the index while it runs.
pub const HOSTS: &str = r#"
import html.parser, json, sys, urllib.parse, urllib.request
class Page(html.parser.HTMLParser):
    def __init__(self, base, text):
        super().__init__()
        self.base, self.links = base, []
        self.feed(text)
    def handle_starttag(self, tag, attributes):
        link = dict(attributes).get("href")
        if link and tag == "base":
            self.base = urllib.parse.urljoin(self.base, link)
        if link and tag == "a":
            self.links.append(urllib.parse.urljoin(self.base, link))
index, found = sys.argv[1].rstrip("/"), set()
for name in sys.argv[2:]:
    request = urllib.request.Request(f"{index}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read(64 << 20).decode()
        if answer.headers.get_content_type().endswith("json"):
            links = [urllib.parse.urljoin(answer.url, file["url"]) for file in json.loads(text)["files"]]
        else:
            links = Page(answer.url, text).links
    for link in links:
        parts = urllib.parse.urlsplit(link)
        if parts.hostname and parts.scheme in ("http", "https") and parts.path.endswith((".whl", ".tar.gz", ".zip")):
            found.add(f"{parts.hostname}:{parts.port or {'http': 80, 'https': 443}[parts.scheme]}")
print("\n".join(sorted(found)))
"#;

/// Why what pip said or did is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// A file.
    #[error("cannot read what pip wrote of the packages")]
    Unread(#[source] std::io::Error),
    /// Not the form of a report (pip 22.2 and newer).
    #[error("what pip wrote of the packages has no form that toolcell knows")]
    Form(#[source] serde_json::Error),
    /// It is of a repository, a directory.
    #[error("`{0}` does not come from the index: it has no hash of its archive")]
    NoIntegrity(String),
    /// It would decide of what else of the host its cells see.
    #[error("a package brings settings of its own for the environment (`{SETTINGS}`)")]
    Settings,
    /// It is not there at all.
    #[error("pip would not install `{0}`")]
    Missing(String),
}

#[derive(Debug, Deserialize)]
struct Report {
    install: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    metadata: Metadata,
    download_info: Download,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct Download {
    archive_info: Option<Archive>,
}

#[derive(Debug, Deserialize)]
struct Archive {
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// What pip would install, from its report.
///
/// # Errors
/// It cannot be read, or something in it has no hash.
pub fn pinned(report: &Path) -> Result<Vec<Pinned>, Untaken> {
    read(&seal::text(report, MOST).map_err(Untaken::Unread)?)
}

fn read(text: &str) -> Result<Vec<Pinned>, Untaken> {
    let report: Report = serde_json::from_str(text).map_err(Untaken::Form)?;
    let pin = |item: Item| {
        let Metadata { name, version } = item.metadata;
        let right = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
        };
        let hash = item.download_info.archive_info.and_then(|archive| archive.hashes.get("sha256").cloned());
        let hash = hash.filter(|hash| hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()));
        match hash.filter(|_| right(&name) && right(&version)) {
            Some(hash) => {
                Ok(Pinned { name: name.to_ascii_lowercase(), version, integrity: format!("sha256:{hash}") })
            }
            None => Err(Untaken::NoIntegrity(name)),
        }
    };
    report.install.into_iter().map(pin).collect()
}

/// What an environment says of itself.
///
/// # Errors
/// The file cannot be read.
pub fn settings(tree: &Path) -> Result<String, Untaken> {
    seal::text(&tree.join(SETTINGS), MOST).map_err(Untaken::Unread)
}

/// The file by which pip installs just that.
#[must_use]
pub fn requirements(packages: &[Pinned]) -> String {
    packages.iter().fold(String::new(), |mut text, Pinned { name, version, integrity }| {
        let _infallible = writeln!(text, "{name}=={version} --hash={integrity}").is_err();
        text
    })
}

/// The version of a package among these.
///
/// # Errors
/// It is not among them.
pub fn version(packages: &[Pinned], package: &Package) -> Result<String, Untaken> {
    let same = |name: &str| name.replace(['_', '.'], "-") == package.main.name;
    let found = packages.iter().find(|pinned| same(&pinned.name));
    found.map(|pinned| pinned.version.clone()).ok_or_else(|| Untaken::Missing(package.main.name.clone()))
}

/// The programs of an environment: what its packages say they have, by name, and the package's own.
///
/// # Errors
/// A directory cannot be read.
pub fn programs(
    tree: &Path,
    package: &Package,
) -> Result<(BTreeMap<String, String>, Option<String>), Untaken> {
    let mut programs = BTreeMap::new();
    let mut own = Vec::new();
    for directory in information(tree).map_err(Untaken::Unread)? {
        let distribution = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name =
            distribution.split('-').next().unwrap_or_default().to_ascii_lowercase().replace(['_', '.'], "-");
        let wanted = package.requirements().any(|one| one.name == name);
        let text = match seal::text(&directory.join(ENTRY_POINTS), MOST) {
            Ok(text) if wanted => text,
            _ => continue,
        };
        for program in console_scripts(&text).filter(|program| tree.join("bin").join(program).is_file()) {
            programs.insert(program.to_owned(), format!("bin/{program}"));
            if name == package.main.name {
                own.push(program.to_owned());
            }
        }
    }
    let main = match own.as_slice() {
        [only] => Some(only.clone()),
        several => several.iter().find(|name| name.replace(['_', '.'], "-") == package.main.name).cloned(),
    };
    Ok((programs, main))
}

/// Where each package of an environment says what it is.
fn information(tree: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for python in std::fs::read_dir(tree.join("lib"))? {
        let packages = python?.path().join("site-packages");
        for entry in std::fs::read_dir(packages)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "dist-info") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The names below `[console_scripts]`.
fn console_scripts(text: &str) -> impl Iterator<Item = &str> {
    let section = text.lines().map(str::trim).skip_while(|line| *line != "[console_scripts]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()))
        .filter(|name| !name.is_empty() && !name.starts_with('.') && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_what_is_then_installed() {
        let hash = "a".repeat(64);
        let report = format!(
            r#"{{ "version": "1", "install": [ {{ "metadata": {{ "name": "A_b", "version": "1.0" }},
            "download_info": {{ "url": "https://a.example/a.whl", "archive_info": {{ "hashes": {{ "sha256": "{hash}" }} }} }} }} ] }}"#
        );
        let packages = read(&report).unwrap();
        assert_eq!(requirements(&packages), format!("a_b==1.0 --hash=sha256:{hash}\n"));
        assert_eq!(version(&packages, &"pypi:a-b".parse().unwrap()).unwrap(), "1.0");
        assert!(version(&packages, &"pypi:c".parse().unwrap()).is_err());
        for (from, to) in [
            ("archive_info", "dir_info"),
            (hash.as_str(), "short"),
            ("1.0\"", "1 --index-url=x\""),
            ("A_b", "A b"),
        ] {
            assert!(matches!(read(&report.replace(from, to)), Err(Untaken::NoIntegrity(_))), "{to}");
        }
    }

    #[test]
    fn programs_are_what_a_package_says_of_the_console() {
        let text = "[other]\nx = a:b\n[console_scripts]\nmcp-a = a:main\n../y = a:b\nz=a:c [extra]\n\n[gui_scripts]\nw = a:d\n";
        assert_eq!(console_scripts(text).collect::<Vec<_>>(), ["mcp-a", "z"]);
    }
}
