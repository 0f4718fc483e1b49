//! Where arguments may lead, and that no grant is wider than its policy. Never: does I/O.

use proptest::prelude::*;
use serde_json::json;

use super::super::pointer::Pointer;
use super::*;
use crate::outcome::Layer;
use crate::policy::unix_socket::{self, UnixSocket};

fn network(allow: &[&str], deny: &[&str]) -> Network {
    let allow =
        allow.iter().map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() });
    let deny = deny.iter().map(|text| text.parse().unwrap()).collect();
    let unix = vec![UnixSocket::new("/run/a", "", "").unwrap()];
    Network { allow: allow.collect(), deny, unix, up: Some(9), ..Network::default() }
}

fn grant(argument: &str, within: &[&str]) -> ConnectGrant {
    ConnectGrant {
        argument: Pointer::parse(argument).unwrap(),
        within: within.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// The doors that an argument opens, or why none, and the hint.
fn ask(network: &Network, within: &[&str], argument: &Value) -> Result<Vec<String>, (String, String)> {
    let found = connected(network, "p", &[grant("/url", within)], &json!({"url": argument}));
    let (left, granted) = found.map_err(|error| (error.to_string(), error.hint().unwrap_or_default()))?;
    let doors: Vec<String> = left.doors().map(|door| door.destination.to_string()).collect();
    assert!(granted.iter().all(|one| one.access == "connect" && one.by.as_deref() == Some("/arguments/url")));
    let rest = Network { allow: Vec::new(), unix: Vec::new(), named: true, ..network.clone() };
    assert_eq!(Network { allow: Vec::new(), ..left }, rest);
    Ok(doors)
}

#[test]
fn no_argument_leads_into_the_hosts_network() {
    let outside = Network { mode: Mode::Host, ..Network::default() };
    let (left, _) = connected(&outside, "p", &[grant("/url", &["a.example:443"])], &json!({})).unwrap();
    assert_eq!(left, Network { named: true, ..Network::default() });
}

#[test]
fn an_argument_opens_the_door_that_it_names_and_no_other() {
    let network = network(
        &[
            "*.example.com:443",
            "*.example.com:80",
            "api.github.com:443",
            "10.0.0.5:80",
            "[2001:db8::1]:443",
            "localhost:8080",
        ],
        &["admin.example.com:*"],
    );
    let within = [
        "*.example.com:443",
        "*.example.com:80",
        "api.github.com:443",
        "10.0.0.5:80",
        "[2001:db8::1]:443",
        "localhost:8080",
    ];
    for (argument, doors) in [
        ("https://www.example.com/a?b#c", vec!["www.example.com:443"]),
        ("HTTPS://API.GitHub.com", vec!["api.github.com:443"]),
        ("http://www.example.com", vec!["www.example.com:80"]),
        ("wss://a.b.example.com:443/", vec!["a.b.example.com:443"]),
        ("http://10.0.0.5/", vec!["10.0.0.5:80"]),
        ("http://[::ffff:10.0.0.5]/", vec!["10.0.0.5:80"]),
        ("https://[2001:db8::1]/", vec!["[2001:db8::1]:443"]),
        ("http://localhost:8080/", vec!["localhost:8080"]),
        ("www.example.com", vec!["www.example.com:80", "www.example.com:443"]),
        ("api.github.com", vec!["api.github.com:443"]),
        ("www.example.com:80", vec!["www.example.com:80"]),
        ("[2001:db8::1]:443", vec!["[2001:db8::1]:443"]),
        ("10.0.0.5", vec!["10.0.0.5:80"]),
    ] {
        assert_eq!(
            ask(&network, &within, &json!(argument)),
            Ok(doors.into_iter().map(str::to_owned).collect()),
            "{argument}"
        );
    }
    assert_eq!(connected(&network, "p", &[grant("/url", &within)], &json!({})).unwrap().0.doors().count(), 0);
}

#[test]
fn what_leads_elsewhere_or_nobody_knows_where_is_refused_and_told() {
    let network = network(&["*.example.com:443", "10.0.0.5:80"], &["admin.example.com:443"]);
    let within = ["*.example.com:443", "b.example:443", "10.0.0.6:80"];
    for (argument, told, hint) in [
        (
            json!("https://example.com/"),
            "leads to `example.com:443`, which is not within `*.example.com:443`",
            "within = [\"*.example.com:443\", \"b.example:443\", \"10.0.0.6:80\", \"example.com:443\"]",
        ),
        (json!("https://evilexample.com/"), "not within", ""),
        (json!("http://a.example.com/"), "leads to `a.example.com:80`, which is not within", ""),
        (
            json!("https://b.example/"),
            "which profile `p` does not let tools reach",
            "[network] allow = [\"b.example:443\"]",
        ),
        (json!("https://admin.example.com/"), "which profile `p` denies", "above all grants"),
        (json!("http://10.0.0.6/"), "does not let tools reach", "[network] allow = [\"10.0.0.6:80\"]"),
        (json!("http://10.0.0.5/"), "not within", ""),
        (json!("https://a.example.com@evil.example/"), "without a user's name", ""),
        (json!("https://evil.example\\@a.example.com/"), "printable ASCII", ""),
        (json!("https://a.example.com%2eevil.example/"), "whose host is a name", ""),
        (json!("https://a.example.com./"), "whose host is a name", ""),
        (json!("http://167772166/"), "whose host is a name", ""),
        (json!("http://0x0a000006/"), "whose host is a name", ""),
        (json!("http://10.6/"), "whose host is a name", ""),
        (json!("https://a.example.com:65536/"), "up to 65535", ""),
        (json!("git://a.example.com/"), "scheme has no usual one", ""),
        (json!("file:///etc/passwd"), "whose host is a name", ""),
        (json!("//a.example.com/"), "neither a URL", ""),
        (json!("a.example.com/x"), "neither a URL", ""),
        (json!("*.example.com:443"), "neither a URL", "name one host"),
        (json!("*.example.com"), "neither a URL", "name one host"),
        (json!("a.example.com:"), "neither a URL", "write the port too"),
        (json!("10.6:80"), "neither a URL", "four numbers"),
        (json!(" https://a.example.com/"), "ASCII", ""),
        (json!("x".repeat(9000)), "at most 8192 bytes", ""),
        (json!(7), "is no text", ""),
        (json!(["https://a.example.com/"]), "is no text", ""),
    ] {
        let (error, suggestion) = ask(&network, &within, &argument).unwrap_err();
        assert!(error.contains(told) && suggestion.contains(hint), "{argument}: {error} / {suggestion}");
    }
    assert!(ask(&network, &[], &json!("a.example.com")).unwrap_err().0.contains("neither a URL"));
    assert!(
        ask(&network, &[], &json!("https://a.example.com"))
            .unwrap_err()
            .0
            .contains("not within anything: `within` is empty")
    );
}

#[test]
fn several_arguments_have_several_doors_and_a_call_has_a_bound() {
    let network = network(&["*.example.com:443"], &[]);
    let grants = [grant("/urls/*", &["*.example.com:443"]), grant("/host", &["a.example.com:443"])];
    let urls = |count: usize| (0..count).map(|at| format!("https://n{at}.example.com/")).collect::<Vec<_>>();
    let (left, granted) =
        connected(&network, "p", &grants, &json!({"urls": urls(2), "host": "a.example.com"})).unwrap();
    let doors: Vec<String> = left.doors().map(|door| door.destination.to_string()).collect();
    assert_eq!(doors, ["n0.example.com:443", "n1.example.com:443", "a.example.com:443"]);
    let by: Vec<_> = granted.iter().map(|one| one.by.as_deref().unwrap()).collect();
    assert_eq!(by, ["/arguments/urls/*", "/arguments/urls/*", "/arguments/host"]);
    assert!(connected(&network, "p", &grants, &json!({"urls": urls(MOST)})).is_ok());
    let many = connected(&network, "p", &grants, &json!({"urls": urls(MOST), "host": "a.example.com"}));
    assert!(matches!(many, Err(Unreached::Many { count: 65, .. })));
}

const PLACES: [&str; 9] = [
    "*.example.com:443",
    "*.example.com:80",
    "a.example.com:443",
    "example.com:443",
    "*.com:443",
    "10.0.0.5:80",
    "[2001:db8::1]:443",
    "localhost:80",
    "*.a.example.com:443",
];
const DENIED: [&str; 5] =
    ["a.example.com:443", "*.example.com:*", "*.a.example.com:443", "10.0.0.5:*", "localhost:80"];

fn arguments() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec![
        "a.example.com",
        "b.a.example.com",
        "example.com",
        "x.com",
        "10.0.0.5",
        "[2001:db8::1]",
        "[::ffff:10.0.0.5]",
        "localhost",
        "*.example.com",
        "a.example.com@x.com",
        "x.com\\@a.example.com",
        "0xa.5",
        "A.EXAMPLE.COM",
        "",
    ]);
    let scheme = prop::sample::select(vec!["https://", "http://", "//", "", "ftp://"]);
    let port = prop::sample::select(vec!["", ":443", ":80", ":", ":0443"]);
    let rest = prop::sample::select(vec!["", "/", "/p?q=https://x.com", "#@x.com"]);
    (scheme, host, port, rest).prop_map(|(scheme, host, port, rest)| format!("{scheme}{host}{port}{rest}"))
}

proptest! {
    /// Whatever it says and whatever the arguments are: each door is one that the policy opens too, and one that the grant names.
    #[test]
    fn a_grant_is_never_wider_than_its_policy(
        allow in prop::sample::subsequence(PLACES.to_vec(), 0..PLACES.len()),
        deny in prop::sample::subsequence(DENIED.to_vec(), 0..2),
        within in prop::sample::subsequence(PLACES.to_vec(), 0..PLACES.len()),
        argument in arguments(),
    ) {
        let policy = network(&allow, &deny);
        let found = connected(&policy, "p", &[grant("/url", &within)], &json!({"url": &argument}));
        if let Ok((left, granted)) = found {
            prop_assert!(!granted.is_empty());
            for door in left.doors() {
                let Destination { host, port } = &door.destination;
                let open = match host {
                    Host::Name(name) => policy.allows_name(name, *port).is_some(),
                    Host::Address(address) => policy.allows_address(*address, *port).is_some(),
                    Host::Below(_) => false,
                };
                prop_assert!(open && grant("/", &within).within.iter().any(|known| covers(known, &door.destination)));
            }
            prop_assert_eq!(left.allow.len(), left.doors().count());
            let kept = Network { allow: policy.allow.clone(), unix: policy.unix.clone(), named: false, ..left };
            prop_assert_eq!(kept, policy);
        }
    }
}

/// The line that raises a limit does so for the door that an argument names too; one that allows a destination does not.
#[test]
fn what_a_profile_lets_through_is_told_where_its_line_would_help() {
    let network = Network { named: true, ..Network::default() };
    let told = |line: &str| {
        let allow = Some(line.to_owned());
        let violation =
            Violation { allow, ..Violation::of_toolcell(Layer::Network, "connect", String::new()) };
        let mut all = [violation];
        as_named(&network, &mut all);
        all[0].allow.is_some()
    };
    for line in [
        "[network]\nallow = [{ to = \"a.example:443\", rate = 2 }]",
        "[network]\nhosts = { \"a.example\" = \"10.0.0.5\" }",
        "[network]\nlisten = [8080]",
        "[network]\nsni = \"any\"",
        "[filesystem]\nread = [\"/allow\"]",
    ] {
        assert!(told(line), "{line}");
    }
    for line in [
        allow_line("a.example:443"),
        "[network]\nallow = [ 'a.example:443' ]".to_owned(),
        "network.allow = [\n  \"a.example:443\",\n]".to_owned(),
        unix_socket::allow_line("/run/a").unwrap(),
    ] {
        assert!(!told(&line), "{line}");
    }
}
