//! Where a package manager's registry is, by its own settings, which it is asked for outside of any cell.
//!
//! Neighbours: `install` lets its cells reach just that. Never: knows a registry of its own.

use std::net::ToSocketAddrs as _;
use std::process::{Command, Stdio};

use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::address::{self, special};
use crate::policy::network::{Destination, Host};

/// A host that a cell can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) destination: Destination,
    /// Its addresses, where they are none of the open network: the person's settings lead there.
    pub(super) private: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("cannot ask `{0}` where its registry is")]
    Asked(String, #[source] std::io::Error),
    #[error("`{0}` does not say where its registry is: {1}")]
    Silent(String, String),
    #[error("the registry's address `{0}` cannot be used")]
    Address(String),
    #[error("the registry's address holds credentials")]
    Credentials,
}

fn unknown(error: Unknown) -> Failure {
    let hint = match &error {
        Unknown::Asked(program, _) => fetches_with(program),
        Unknown::Silent(_, said) if said.contains(NO_PIP) => fetches_with("pip"),
        Unknown::Silent(program, _) => format!("mend the settings of `{program}`"),
        Unknown::Address(_) => "write it as `https://HOST/PATH` in the package manager's settings".to_owned(),
        Unknown::Credentials => {
            "toolcell gives no credentials to a cell that fetches packages: install it by hand, and name its program".to_owned()
        }
    };
    Failure::new(Ending::Other, error).hint(Some(hint))
}

/// What Python says of a module that is not there.
const NO_PIP: &str = "No module named pip";

fn fetches_with(program: &str) -> String {
    format!(
        "toolcell fetches with {program}, whichever program a command names: install it, or put its directory into `PATH`"
    )
}

/// What a program prints, started in `/`, where no project's settings are.
pub(super) fn ask(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let shown = || program.to_owned();
    let mut command = Command::new(program);
    command.args(arguments).env("npm_config_logs_max", "0").current_dir("/").stdin(Stdio::null());
    let output = command.output().map_err(|error| unknown(Unknown::Asked(shown(), error)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(unknown(Unknown::Silent(shown(), said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The registry of npm for packages of a scope, or of none.
pub(super) fn npm(scope: Option<&str>) -> Result<String, Failure> {
    if let Some(scope) = scope {
        let own = ask("npm", &["config", "get", &format!("{scope}:registry")])?;
        if own.starts_with("http") {
            return Ok(own);
        }
    }
    ask("npm", &["config", "get", "registry"])
}

/// The index of pip, and the file of certificates that it is told of.
pub(super) fn pypi(python: &str) -> Result<(String, Option<String>), Failure> {
    let settings = ask(python, &["-m", "pip", "config", "list"])?;
    let index = match setting(&settings, "index-url") {
        Some(index) => index,
        // No setting of a person's: pip's own.
        None => ask(python, &["-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"])?,
    };
    Ok((index, setting(&settings, "cert")))
}

/// A setting by its name: of what `pip config list` prints, variables are above the files of an environment, of a user, of all.
fn setting(settings: &str, name: &str) -> Option<String> {
    let of = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let (place, key) = key.trim().rsplit_once('.')?;
        (key == name).then(|| (place.to_owned(), value.trim().trim_matches(['\'', '"']).to_owned()))
    };
    let found: Vec<(String, String)> = settings.lines().filter_map(of).collect();
    let order = [":env:", "install", "site", "global"];
    order
        .iter()
        .find_map(|place| found.iter().find(|(from, _)| from == place).map(|(_, value)| value.clone()))
}

/// An address as it can be shown and compared: without credentials, scheme and host in small letters, with no slash at its end.
pub(super) fn plain(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (place, path) = rest.split_at(end);
    let host = place.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    format!("{}://{host}{}", scheme.to_ascii_lowercase(), path.trim_end_matches('/'))
}

/// The host of an address, and what has to be granted for it to be reached.
pub(super) fn reach(url: &str) -> Result<Reach, Failure> {
    let (rest, port) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (rest, 443),
        (_, Some(rest)) => (rest, 80),
        _ => return Err(unknown(Unknown::Address(plain(url)))),
    };
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if place.contains('@') {
        return Err(unknown(Unknown::Credentials));
    }
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.chars().all(|c| c.is_ascii_digit()));
    let text = if has_port { place.to_owned() } else { format!("{place}:{port}") };
    reach_place(&text).ok_or_else(|| unknown(Unknown::Address(plain(url))))
}

/// The same for `HOST:PORT`.
pub(super) fn reach_place(text: &str) -> Option<Reach> {
    let destination: Destination = text.to_ascii_lowercase().parse().ok()?;
    let name = match &destination.host {
        Host::Name(name) => name.clone(),
        // What is written as an address is granted by that.
        Host::Address(_) => return Some(Reach { destination, private: Vec::new() }),
        Host::Below(_) => return None,
    };
    // Where it leads now is where the person's settings lead: an address of a private network is meant. What cannot be resolved
    // will be told by the package manager.
    let found =
        (name.as_str(), 0).to_socket_addrs().into_iter().flatten().map(|found| address::plain(found.ip()));
    let mut private: Vec<String> = found
        .filter(|address| special(*address).is_some())
        .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    private.sort();
    private.dedup();
    Some(Reach { destination, private })
}

/// The same for a place that a page of the registry names, and nobody's settings: it is of the open network, or cannot be reached.
pub(super) fn open_place(text: &str) -> Option<Reach> {
    let destination: Destination = text.to_ascii_lowercase().parse().ok()?;
    let open = match &destination.host {
        Host::Name(name) => name != "localhost" && !name.ends_with(".localhost"),
        Host::Address(address) => special(*address).is_none(),
        Host::Below(_) => false,
    };
    open.then(|| Reach { destination, private: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_which_host_may_be_reached() {
        for (url, place) in [
            ("https://127.0.0.1/simple", "127.0.0.1:443"),
            ("http://127.0.0.1:4873/", "127.0.0.1:4873"),
            ("http://[::1]/x", "[::1]:80"),
            ("http://localhost", "localhost:80"),
        ] {
            assert_eq!(reach(url).unwrap().destination.to_string(), place);
        }
        for url in ["ftp://a.example", "https://", "a.example", "https://*.example/"] {
            assert!(reach(url).is_err(), "{url}");
        }
        for url in ["https://user:word@a.example/", "ftp://user:word@a.example/", "user:word@a.example"] {
            let told = reach(url).unwrap_err().render(false);
            assert!(told.contains("hint: ") && !told.contains("word"), "{told}");
        }
    }

    #[test]
    fn what_a_page_names_is_of_the_open_network() {
        for place in ["files.example:443", "9.9.9.9:80", "localhost.example:443"] {
            assert!(open_place(place).unwrap().private.is_empty(), "{place}");
        }
        for place in [
            "localhost:80",
            "LOCALHOST:80",
            "a.localhost:80",
            "127.0.0.1:80",
            "10.0.0.1:443",
            "169.254.169.254:80",
            "[::1]:80",
            "[::ffff:192.168.0.1]:443",
            "*.example:443",
            "",
        ] {
            assert_eq!(open_place(place), None, "{place}");
        }
    }

    #[test]
    fn of_pips_settings_a_variable_comes_first() {
        let settings = ":env:.cert='/a.pem'\nglobal.cert='/b.pem'\nglobal.index-url='https://a.example/simple'\nsite.index-url=x";
        assert_eq!(setting(settings, "cert").as_deref(), Some("/a.pem"));
        assert_eq!(setting(settings, "index-url").as_deref(), Some("x"));
        assert_eq!(setting(settings, "proxy"), None);
    }
}
