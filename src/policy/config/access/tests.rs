//! The sections as people write them, right and wrong.

use super::super::super::Source;
use super::super::{Config, parse};
use super::*;
use crate::policy::mistakes::Mistakes;

fn read(text: &str) -> Result<Config, Mistakes> {
    let text = format!("[servers.git]\ncommand = [\"git\"]\n{text}");
    let source = Source { name: "c".to_owned(), path: Some("/etc/cells/config.toml".into()), text };
    parse(&source, &BTreeSet::new())
}

#[test]
fn what_is_written_is_what_holds() {
    let text = r#"
[auth]
mode = "token"
[identities."ci@host"]
roles = ["w"]
rates = [{ tools = "git/*", calls = 10, per = "1m" }, { tools = "*/a", calls = 0x10, per = "24h", burst = 1 }]
concurrent = 2
quota = 1_000
[roles.w]
allow = ["git/a", "*/prompt:*", "git/a"]
deny = ["git/b"]
"#;
    let access = read(text).unwrap().access;
    let identity = &access.identities["ci@host"];
    assert_eq!((access.mode, identity.concurrent, identity.quota), (Mode::Token, Some(2), Some(1000)));
    let rates: Vec<_> = identity.rates.iter().map(|r| (r.calls, r.per.as_secs(), r.burst)).collect();
    assert_eq!(rates, [(10, 60, 10), (16, 86_400, 1)]);
    assert_eq!((access.roles["w"].allow.len(), access.roles["w"].deny.len()), (2, 1));
    assert_eq!(read("").unwrap().access, Access::default());
    assert_eq!(read("[auth]\nmode = \"none\"").unwrap().access.mode, Mode::None);
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = r#"
[auht]
[auth]
mode = "tokne"
tokens = []
[identities.bob]
roles = ["raeder", 7]
concurrent = 0
quota = "many"
rates = [{ tools = "git/a", calls = 1, per = "25h", bust = 1 }, { calls = 1 }]
[identities.carol]
[identities."a b"]
roles = []
[roles.reader]
alow = []
allow = ["git_log", "gti/git_log", "git/", "g t/x", 7]
deny = "git/x"
"#;
    insta::assert_snapshot!(read(text).unwrap_err());
}

#[test]
fn rights_that_nobody_would_look_at_are_a_mistake() {
    let roles = "[identities.a]\nroles = [\"r\"]\n[roles.r]\nallow = [\"git/*\"]\n";
    for auth in ["", "[auth]\nmode = \"none\"\n"] {
        let error = read(&format!("{auth}{roles}")).unwrap_err().to_string();
        assert!(error.contains("`identities` has no effect: nobody is asked who they are"), "{error}");
        assert!(read(&format!("{auth}[roles.r]\nallow = [\"git/*\"]\n")).is_err());
    }
    assert!(read("[auth]\nmode = \"token\"").unwrap_err().to_string().contains("nobody may call anything"));
    assert!(read("[auth]").unwrap_err().to_string().contains("`[auth]` has no `mode`"));
    assert!(read(&format!("[auth]\nmode = \"token\"\n{roles}")).is_ok());
}

#[test]
fn a_window_is_for_signed_requests() {
    let auth = |text: &str| read(&format!("[auth]\n{text}\n[identities.a]\nroles = []\n"));
    let signed = |text: &str| auth(&format!("mode = \"signed\"\n{text}")).map(|config| config.access);
    let access = signed("").unwrap();
    assert_eq!((access.mode, access.window(), access.window), (Mode::Signed, Duration::from_secs(300), None));
    for (text, seconds) in [("1s", 1), ("90s", 90), ("1h", 3600)] {
        assert_eq!(signed(&format!("window = \"{text}\"")).unwrap().window().as_secs(), seconds);
    }
    for text in ["\"999ms\"", "\"0s\"", "\"61m\"", "\"long\"", "300"] {
        assert!(signed(&format!("window = {text}")).is_err(), "{text}");
    }
    assert!(signed("window = \"2h\"").unwrap_err().to_string().contains("from `1s` to `1h`"));
    let told = auth("mode = \"token\"\nwindow = \"5m\"").unwrap_err().to_string();
    assert!(told.contains("`window` has no effect: requests are not signed"), "{told}");
    assert!(auth("window = \"5m\"").is_err());
    assert!(read("[auth]\nmode = \"signed\"").unwrap_err().to_string().contains("nobody may call anything"));
}
