//! `toolcell token` as the operator meets it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use toolcell::access::signing_key;
use toolcell::policy::tokens::to_hex;

const CONFIG: &str =
    "[servers.x]\ncommand = [\"x\"]\n[auth]\nmode = \"token\"\n[identities.alice]\nroles = []\n";

/// A directory with a configuration, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolcell-token-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("servers.toml"), CONFIG).unwrap();
        Self(path)
    }

    fn token(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(crate::binary());
        command.arg("token").args(arguments).arg("--config").arg(self.0.join("servers.toml"));
        command.output().unwrap()
    }

    fn file(&self) -> String {
        fs::read_to_string(self.0.join("tokens.toml")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_token_is_shown_once_kept_as_a_hash_and_taken_back() {
    let place = Place::new("life");
    let (code, token, told) = said(&place.token(&["new", "alice", "--expires", "1d"]));
    assert_eq!(code, Some(0), "{told}");
    let secret = token.trim_end();
    assert!(secret.strip_prefix("toolcell_").is_some_and(|hex| hex.len() == 64), "{token}");
    assert!(told.contains("of identity `alice`, good until 2") && !told.contains(secret), "{told}");
    let mode = fs::metadata(place.0.join("tokens.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(!place.file().contains(secret) && !place.file().contains(&secret[9..]));
    let (_, other, _) = said(&place.token(&["new", "alice"]));
    assert_ne!(token, other);

    let (_, listed, _) = said(&place.token(&["list"]));
    let ids: Vec<&str> = listed.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!((ids.len(), place.file().matches("[[tokens]]").count()), (2, 2), "{listed}");
    let (code, told, _) = said(&place.token(&["revoke", ids[0]]));
    assert_eq!(code, Some(0), "{told}");
    let (_, left, _) = said(&place.token(&["list"]));
    assert!(left.contains(ids[1]) && !left.contains(ids[0]), "{left}");
    let (code, _, told) = said(&place.token(&["revoke", ids[0]]));
    assert_eq!(code, Some(120), "{told}");
}

#[test]
fn under_signed_requests_the_key_is_kept_that_is_derived_from_the_token() {
    let place = Place::new("signed");
    fs::write(place.0.join("servers.toml"), CONFIG.replace("\"token\"", "\"signed\"")).unwrap();
    let (code, token, told) = said(&place.token(&["new", "alice"]));
    assert_eq!(code, Some(0), "{told}");
    let key = to_hex(&signing_key(token.trim_end().as_bytes()).unwrap().0);
    let file = place.file();
    assert!(
        file.contains(&format!("signing = \"{key}\""))
            && !file.contains("hash =")
            && !file.contains("salt =")
    );
    assert!(!file.contains(&token.trim_end()[9..]));
    let id = told.split('`').nth(1).unwrap();
    assert!(file.contains(&format!("id = \"{id}\"")) && !key.contains(id), "{told}");
    // Neither is of use in the other mode.
    assert_eq!(
        said(&place.token(&["list"])).1.lines().filter(|line| line.ends_with("of another mode")).count(),
        0
    );
    fs::write(place.0.join("servers.toml"), CONFIG).unwrap();
    assert_eq!(said(&place.token(&["new", "alice"])).0, Some(0));
    assert!(place.file().contains(&format!("signing = \"{key}\"")) && place.file().contains("hash ="));
    let listed = said(&place.token(&["list"])).1;
    let other: Vec<&str> = listed.lines().filter(|line| line.ends_with("  of another mode")).collect();
    assert!(other.len() == 1 && other[0].starts_with(id), "{listed}");
}

#[test]
fn what_cannot_be_used_is_said_and_changes_nothing() {
    let place = Place::new("mistakes");
    let (code, out, told) = said(&place.token(&["new", "alcie"]));
    assert_eq!((code, out.as_str()), (Some(120), ""));
    assert!(told.contains("no identity `alcie`\nhint: did you mean `alice`?"), "{told}");
    for life in ["0s", "3651d", "never", "30"] {
        assert_eq!(said(&place.token(&["new", "alice", "--expires", life])).0, Some(2), "{life}");
    }
    assert_eq!(place.file(), "");
    // Another one is at work, or was killed.
    fs::write(place.0.join("tokens.toml.new"), "").unwrap();
    let (code, out, told) = said(&place.token(&["new", "alice"]));
    assert_eq!((code, out.as_str(), place.file().as_str()), (Some(1), "", ""));
    assert!(told.contains("one was killed: rm '"), "{told}");
    fs::remove_file(place.0.join("tokens.toml.new")).unwrap();
    // A file that others can write to could name anybody.
    fs::write(place.0.join("tokens.toml"), "").unwrap();
    fs::set_permissions(place.0.join("tokens.toml"), fs::Permissions::from_mode(0o622)).unwrap();
    let (code, _, told) = said(&place.token(&["list"]));
    assert_eq!(code, Some(120));
    assert!(told.contains("can be changed by others"), "{told}");
}

#[test]
fn a_list_says_which_tokens_are_good_for_nothing() {
    let place = Place::new("list");
    let entry = |id: &str, identity: &str, year: u32| {
        let (salt, hash) = ("00".repeat(16), "00".repeat(32));
        format!(
            "[[tokens]]\nid = \"{id}\"\nidentity = \"{identity}\"\nsalt = \"{salt}\"\nhash = \"{hash}\"\nexpires = {year}-01-01T00:00:00Z\n"
        )
    };
    let file = entry("a", "alice", 2100) + &entry("b", "alice", 2020) + &entry("c", "bob", 2100);
    fs::write(place.0.join("tokens.toml"), file).unwrap();
    let (_, listed, _) = said(&place.token(&["list"]));
    assert_eq!(
        listed,
        "a  alice  2100-01-01T00:00:00Z\nb  alice  2020-01-01T00:00:00Z  expired\nc  bob    2100-01-01T00:00:00Z  no such identity\n"
    );
}
