//! Each rule finds its kind, and nothing finds what is none. The credentials are put together here, so that no scanner
//! takes this file for a place where one is kept.

use super::*;

fn found(text: &str) -> Vec<String> {
    let (table, _) = DeTable::parse_recoverable(text);
    find(text, table.get_ref()).into_iter().map(|literal| literal.what).collect()
}

const RANDOM: &str = "a8Kd03mZq7Lx92BvTn4Y";

#[test]
fn each_prefix_is_known() {
    for (prefix, least, of, what) in KNOWN {
        let rest: String = "A1B2C3D4E5F60718".chars().cycle().filter(|c| of(*c as u8)).take(*least).collect();
        let text = format!("a = \"x {prefix}{rest}\"");
        assert_eq!(found(&text), [*what], "{prefix}");
        assert_eq!(found(&format!("# {prefix}{rest}")), [*what], "{prefix} in a comment");
        assert_eq!(found(&format!("[{prefix}{rest}")), [*what], "{prefix} in what is no TOML");
        let short: String = rest.chars().skip(1).collect();
        let whole = format!("a = \"{prefix}{short}\"");
        assert!(found(&whole).is_empty(), "{whole}");
        let words = "word".repeat(20);
        assert!(found(&format!("a = \"{prefix}{words}\"")).is_empty(), "{prefix}");
        assert!(found(&format!("a = \"x{prefix}{rest}\"")).is_empty(), "{prefix} in a word");
    }
}

#[test]
fn keys_signed_tokens_and_passwords_in_addresses_are_known() {
    let begin = ["-----BEGIN", "PRIVATE", "KEY-----"];
    for kind in ["", "RSA ", "OPENSSH ", "ENCRYPTED "] {
        let key = format!("{} {kind}{} {}\nMIIE\n-----END KEY-----", begin[0], begin[1], begin[2]);
        assert_eq!(found(&format!("a = '''\n{key}\n'''")), ["a private key"], "{kind}");
        assert_eq!(found(&key), ["a private key"], "{kind}");
    }
    assert!(found("a = \"-----BEGIN CERTIFICATE-----\"").is_empty());
    let signed = ["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N"].join(".");
    assert_eq!(found(&format!("a = \"Bearer {signed}\"")), ["a signed token (JWT)"]);
    assert!(found("a = \"eyJhbGciOiJIUzI1NiJ9.eyJ.x\"").is_empty());
    let address = format!("postgres://app:{}@db/x", "hunter2");
    assert_eq!(found(&format!("command = [\"s\", \"{address}\"]")), ["an address with a password"]);
    for none in ["https://host:8080/@x", "https://user@host", "http://[::1]:80/", "ssh://git@host:22/x"] {
        assert!(found(&format!("a = \"{none}\"")).is_empty(), "{none}");
    }
}

#[test]
fn what_is_random_under_a_secrets_name_is_known() {
    for text in [
        format!("api_key = \"{RANDOM}\""),
        format!("[environment.set]\nMY_PASSWORD = \"{RANDOM}\""),
        format!("environment.set.SECRET-1 = \"{RANDOM}\""),
        format!("env = [\"A=1\", \"AUTH_TOKEN={RANDOM}\"]"),
        format!("command = [\"server\", \"--api-key\", \"{RANDOM}\"]"),
        format!("command = [\"server\", \"--api-key={RANDOM}\"]"),
        format!("command = [\"server\", \"TOKEN={RANDOM}\"]"),
    ] {
        let found = found(&text);
        assert!(found.len() == 1 && found[0].starts_with("a random value"), "{text}: {found:?}");
    }
    for text in [
        format!("id = \"{RANDOM}\""),
        format!("command = [\"server\", \"--id\", \"{RANDOM}\"]"),
        "token = \"none-yet-to-be-made\"".to_owned(),
        "key-file = \"/etc/keys/a8Kd03mZq7Lx92BvTn4Y\"".to_owned(),
        "api_key = \"a8Kd03mZq7Lx92B\"".to_owned(),
        "password = \"the quick brown fox 4\"".to_owned(),
        "key = \"aaaaaaaaaaaaaaaaaaaaaaaa1\"".to_owned(),
        format!("[secrets.one]\nfrom = {{ credential = \"{RANDOM}\" }}\nto = [\"a/token\"]"),
        "env = [\"GITHUB_TOKEN=none\", \"GITHUB_TOKEN\"]".to_owned(),
    ] {
        assert!(found(&text).is_empty(), "{text}");
    }
    assert_eq!(found("[secrets.one]\nfrom = { value = \"short\" }"), ["the value of a secret"]);
}

#[test]
fn the_hint_has_the_lines_to_write() {
    let text = format!("[servers.git]\nenv = [\"GIT_TOKEN={RANDOM}\"]");
    let (table, _) = DeTable::parse_recoverable(&text);
    let literal = find(&text, table.get_ref()).remove(0);
    assert_eq!(
        literal.hint,
        "keep it in a file or variable, and write `[secrets.git_token]` with `from = { file = \"/path\" }`, \
         `to = [\"git/TOOL\"]` and `into = { env = \"GIT_TOKEN\" }`; rotate it if others could read this file"
    );
    assert_eq!(&text[literal.range], format!("\"GIT_TOKEN={RANDOM}\""));
}

#[test]
fn no_message_shows_what_was_found() {
    let token = format!("ghp_{RANDOM}");
    let text = format!(
        "# old: {token}\n[servers.git]\ncommand = [\"git\"]\nprofile = \"{token}\"\nenv = [\"TOKEN={RANDOM}\"] x\n\
         validate = \"{token}\" # {token}\ntools.a.profle = \"{token}\"\n[servers.\"{token}\"]\ncommand = '''serve --token {token}\n'''\n"
    );
    let source =
        crate::policy::Source { name: "c".to_owned(), path: Some("/etc/cells/config.toml".into()), text };
    let told =
        crate::policy::config::parse(&source, &std::collections::BTreeSet::new()).unwrap_err().to_string();
    assert!(!told.contains(RANDOM) && !told.contains("ghp_"), "{told}");
    insta::assert_snapshot!(told);
}
