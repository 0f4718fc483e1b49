//! What texts mean, and what they only seem to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{KEYWORDS, Meaning, World};

/// A file system of links: everything else is what it is called.
struct Links(BTreeMap<&'static str, &'static str>);

impl World for Links {
    fn lands(&self, path: &Path) -> Option<PathBuf> {
        let mut real = PathBuf::from("/");
        for part in path.iter().skip(1) {
            if part == ".." {
                real.pop();
                continue;
            }
            real.push(part);
            if let Some(target) = self.0.get(real.to_str()?) {
                real = PathBuf::from(target);
            }
        }
        Some(real)
    }
}

fn judge(keyword: &str, rule: &Value, value: &Value) -> Result<(), String> {
    let links = Links(BTreeMap::from([
        ("/data/away", "/etc"),
        ("/data/near", "/data/sub/deep"),
        ("/srv", "/mnt/srv"),
    ]));
    let meaning = Meaning::read(keyword, "", rule).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    meaning.judge(value, &links).map_err(|unmeant| {
        // What is told to let it through does, where it is no matter of form.
        if let Some(wider) = unmeant.wider.filter(|_| keyword != "path") {
            assert_eq!(Meaning::read(keyword, "", &wider).unwrap().judge(value, &links), Ok(()), "{wider}");
        }
        unmeant.told
    })
}

fn all(keyword: &str, rule: &Value, fits: &[&str], not: &[&str]) {
    let judged = |text: &&&str| judge(keyword, rule, &json!(text)).is_ok();
    let refused: Vec<_> = fits.iter().filter(|text| !judged(text)).collect();
    let passed: Vec<_> = not.iter().filter(judged).collect();
    assert!(refused.is_empty() && passed.is_empty(), "refused: {refused:#?}, passed: {passed:#?}");
    for other in [json!(null), json!(7), json!({"x": "/data/a"}), json!([7])] {
        assert!(judge(keyword, rule, &other).is_err(), "{other}");
    }
}

#[test]
fn a_path_lies_within_wherever_it_leads() {
    all(
        "path",
        &json!({"within": ["/data", "/srv"]}),
        &[
            "/data",
            "/data/",
            "/data/a",
            "/data//a/./b",
            "/data/sub/../a",
            "/data/near/x",
            "/data/near/..",
            "/srv/x",
        ],
        &[
            "",
            "data/a",
            "/",
            "/database",
            "/database/a",
            "/data/../etc/passwd",
            "/data/../../../etc/passwd",
            "../../../etc/passwd",
            "/../data/a",
            "/data/away",
            "/data/away/passwd",
            "/data/near/../../../etc",
            "/mnt/srv/x",
            "/etc/passwd",
            "/data/a\n",
            "/DATA/a",
        ],
    );
    assert!(
        judge("path", &json!({"within": []}), &json!("/data"))
            .unwrap_err()
            .contains("nothing: the list is empty")
    );
    // By its text it stays inside; the kernel follows the link first.
    assert!(judge("path", &json!({"within": ["/data"]}), &json!("/data/away/../x")).is_err());
}

/// What is told to allow it allows it at once, however much is wrong with it.
#[test]
fn several_things_that_are_wrong_with_a_url_are_allowed_together() {
    let rule = json!({"host": ["a.b"]});
    for (url, told) in [
        ("https://jt:6", "must have the host `a.b`"),
        ("x://jt:6/y", "must have the scheme `https`"),
        ("https://a.b:6", "must have the scheme's own port, or one of `port`"),
        ("x://jt:65536", "must have the scheme `https`"),
    ] {
        assert_eq!(judge("url", &rule, &json!(url)), Err(told.to_owned()), "{url}");
    }
}

#[test]
fn a_url_leads_where_it_says() {
    all(
        "url",
        &json!({"scheme": ["https", "http"], "host": ["api.example.com", "*.example.org", "10.0.0.1", "[::1]"], "port": [8443]}),
        &[
            "https://api.example.com",
            "https://api.example.com/a?b=c#d@e",
            "HTTPS://API.example.COM:443/",
            "http://api.example.com:80/x",
            "https://a.b.example.org/",
            "https://api.example.com:8443/",
            "http://10.0.0.1/",
            "http://[::1]:80/",
        ],
        &[
            "",
            "api.example.com",
            "//api.example.com/",
            "file:///etc/passwd",
            "ftp://api.example.com/",
            "javascript:alert(1)",
            "https:api.example.com",
            "https:///api.example.com/",
            "https://example.org/",
            "https://notexample.org/",
            "https://api.example.com.evil.net/",
            "https://evil.net/?https://api.example.com",
            "https://evil.net#@api.example.com",
            "https://api.example.com@evil.net/",
            "https://api.example.com:443@evil.net/",
            r"https://evil.net\@api.example.com/",
            r"https://evil.net\.example.org/",
            "https://api.example.com\t.evil.net/",
            "https://api.example.com /",
            " https://api.example.com/",
            "https://api.example.com./",
            "https://api.example%2ecom/",
            "https://аpi.example.com/",
            "https://api.example.com:8080/",
            "https://api.example.com:/",
            "https://api.example.com:0443/",
            "http://167772161/",
            "http://0xa000001/",
            "http://012.0.0.1/",
            "http://10.1/",
            "http://[::ffff:10.0.0.1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://169.254.169.254/",
        ],
    );
    // Without a scheme, only one that is encrypted.
    let rule = json!({"host": ["a.b"]});
    assert!(
        judge("url", &rule, &json!("http://a.b/")).is_err()
            && judge("url", &rule, &json!("https://a.b/")).is_ok()
    );
}

#[test]
fn a_command_is_like_a_pattern_and_nothing_for_a_shell() {
    let rule = json!({"allow": ["git status", "git log -n* ...", "git show *", "ls --color=*", "cat a*b*c"]});
    all(
        "command",
        &rule,
        &[
            "git status",
            " git  status ",
            "git log -n5",
            "git log -n5 a b -p",
            "git show HEAD",
            "ls --color=never",
            "cat axbyc",
            "cat abc",
        ],
        &[
            "",
            "git",
            "git statuss",
            "git status x",
            "git show",
            "git show HEAD x",
            "git show --output=/etc/x",
            "git log",
            "ls",
            "cat ab",
            "cat abcx",
            "git status; rm -rf /",
            "git status && x",
            "git status | x",
            "git status > x",
            "git show $HOME",
            "git show `id`",
            "git show $(id)",
            "git show 'a'",
            "git show a\\b",
            "git show *",
            "git show {a,b}",
            "git show ~root",
            "git status\nrm",
            "git\tstatus",
            "git\u{a0}status",
            "/usr/bin/git status",
        ],
    );
    assert_eq!(judge("command", &rule, &json!(["git", "show", "HEAD"])), Ok(()));
    for words in [
        json!(["git", "show", "a b"]),
        json!(["git", "show", ""]),
        json!([]),
        json!(["git status"]),
        json!(["git", "show", "a;b"]),
    ] {
        assert!(judge("command", &rule, &words).is_err(), "{words}");
    }
}

#[test]
fn a_statement_executes_what_is_allowed_and_nothing_beside_it() {
    let select = json!({"execute": ["select"]});
    all(
        "sql",
        &select,
        &[
            "SELECT 1",
            "select * from t where a = 'x; DROP TABLE t' -- ; DROP TABLE t",
            "/* DROP TABLE t */ SELECT a FROM t;",
            "WITH x AS (SELECT 1) SELECT * FROM x UNION SELECT 2",
            "SELECT (SELECT max(a) FROM t), b FROM (SELECT * FROM u) AS v WHERE EXISTS (SELECT 1)",
            "VALUES (1, 2)",
            "SELECT $1",
        ],
        &[
            "",
            ";",
            "nonsense",
            "DROP TABLE t",
            "SELECT 1; DROP TABLE t",
            "SELECT 1; SELECT 2",
            "SELECT 1;-- \nDROP TABLE t",
            "DR/**/OP TABLE t",
            "/* SELECT */ DELETE FROM t",
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
            "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
            "SELECT * FROM (WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x) AS y",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "SELECT * INTO u FROM t",
            "SELECT * FROM t FOR UPDATE",
            "EXPLAIN ANALYZE DELETE FROM t",
            "EXPLAIN SELECT 1",
            "INSERT INTO t SELECT * FROM u",
            "REPLACE INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "TRUNCATE t",
            "CREATE TABLE u AS SELECT 1",
            "PRAGMA writable_schema = 1",
            "ATTACH DATABASE '/etc/x' AS x",
            "VACUUM",
            "CALL p()",
            "COPY t TO '/tmp/x'",
            "SELECT 1 /*! ; DROP TABLE t */",
            "SELECT 1 /*M! INTO OUTFILE '/x' */",
            "SELECT '\\' ; DROP TABLE t; -- '",
            "SELECT 1 # ' \n; DROP TABLE t",
            "SELECT $$ ' $$ ; DROP TABLE t",
            "SELECT 1 --; DROP TABLE t",
            "SELECT /* /* */ 1; DROP TABLE t; /* */ */",
            "SELECT 1\u{b}",
            &format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
            &format!("SELECT 1{}", " + 1".repeat(10_000)),
            &format!("SELECT 1{}", " UNION SELECT 1".repeat(2_000)),
            &"SELECT 1 ".repeat(10_000),
        ],
    );
    // As deep as is let through, without harm.
    assert_eq!(judge("sql", &select, &json!(format!("SELECT 1{}", " + 1".repeat(590)))), Ok(()));
    assert_eq!(judge("sql", &select, &json!(format!("SELECT 1{}", " UNION SELECT 1".repeat(290)))), Ok(()));
    drop(judge("sql", &select, &json!(format!("SELECT {}1{}", "(".repeat(30), ")".repeat(30)))));
    let both = json!({"execute": ["SELECT", "INSERT"]});
    assert_eq!(judge("sql", &both, &json!("INSERT INTO t (a) VALUES (1), (2)")), Ok(()));
    assert!(judge("sql", &both, &json!("REPLACE INTO t VALUES (1)")).is_err());
    // With a dialect, what that one reads.
    let mysql = json!({"execute": ["SELECT"], "dialect": "mysql"});
    assert_eq!(judge("sql", &mysql, &json!(r"SELECT '\'; DROP TABLE t' # comment")), Ok(()));
    assert!(judge("sql", &mysql, &json!("SELECT 1 --; DROP TABLE t")).is_err());
    let postgres = json!({"execute": ["SELECT"], "dialect": "postgresql"});
    assert_eq!(judge("sql", &postgres, &json!("SELECT $a$ ; DROP $a$, '#'")), Ok(()));
    assert!(judge("sql", &postgres, &json!(r"SELECT '\'; DROP TABLE t; --'")).is_err());
}

#[test]
fn every_mistake_in_a_keyword_is_told() {
    for (keyword, rule, told) in [
        ("path", json!("/data"), &["must be a table"][..]),
        ("path", json!({"withn": []}), &["is not known here", "has no `within`"]),
        (
            "path",
            json!({"within": ["data", 7, "/a/.."]}),
            &["must be a string", "must be an absolute path, which begins with `/`", "must have no `..`"],
        ),
        (
            "url",
            json!({"host": ["*", "a..b"], "scheme": ["https:"], "port": ["x"]}),
            &[
                "must be a host's name or address, or `*.` and a name",
                "must be a host's name or address, or `*.` and a name",
                "must be an array of numbers from 1 to 65535",
                "must be a scheme, such as `https`",
            ],
        ),
        (
            "command",
            json!({"allow": ["* x", ""]}),
            &["must begin with a program, without `*`", "must begin with a program, without `*`"],
        ),
        (
            "sql",
            json!({"execute": ["SELEKT"], "dialect": "x"}),
            &["must be a kind of statement", "must be one of `sqlite`, `postgresql`, `mysql`"],
        ),
    ] {
        let mistakes = Meaning::read(keyword, "", &rule).unwrap_err();
        let found: Vec<_> = mistakes.iter().map(|mistake| mistake.told.as_str()).collect();
        assert_eq!(found, told, "{rule}");
    }
    assert!(KEYWORDS.iter().all(|keyword| Meaning::read(keyword, "", &json!({})).is_err()));
}

proptest! {
    #[test]
    fn no_path_that_is_let_through_leads_out(parts in prop::collection::vec(prop::sample::select(vec!["..", ".", "data", "away", "near", "etc", "a", "", "srv", "database"]), 0..9)) {
        let text = format!("/{}", parts.join("/"));
        if judge("path", &json!({"within": ["/data"]}), &json!(text)).is_ok() {
            let links = Links(BTreeMap::from([("/data/away", "/etc"), ("/data/near", "/data/sub/deep"), ("/srv", "/mnt/srv")]));
            prop_assert!(links.lands(Path::new(&text)).unwrap().starts_with("/data"), "{text}");
        }
    }

    #[test]
    fn no_text_breaks_anything(text in any::<String>(), pattern in "[a*]{0,6}", word in "[a]{0,8}") {
        for (keyword, rule) in [("path", json!({"within": ["/"]})), ("url", json!({"host": ["a.b"]})), ("command", json!({"allow": ["a ..."]})), ("sql", json!({"execute": ["SELECT"]}))] {
            drop(judge(keyword, &rule, &json!(text)));
            drop(judge(keyword, &rule, &json!(format!("https://{text}"))));
            drop(judge(keyword, &rule, &json!(format!("SELECT {text}"))));
        }
        // Against what the pattern means.
        let rule = json!({"allow": [format!("p b{pattern}")]});
        let least = pattern.matches('a').count();
        let expected = if pattern.contains('*') { word.len() >= least } else { word.len() == least };
        prop_assert_eq!(judge("command", &rule, &json!(format!("p b{word}"))).is_ok(), expected);
    }
}
