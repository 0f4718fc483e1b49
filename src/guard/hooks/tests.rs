//! A file, a socket like that of the host's log, and programs: those that work, fail, stay, and are not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::audit::{ALERT_SCHEMA, Rule};
use crate::sys::descriptor::Interest;
use crate::sys::identity;

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toolcell-hooks-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A command that runs a script.
    fn script(&self, text: &str) -> Option<Vec<String>> {
        let path = self.0.join("script");
        fs::write(&path, text).unwrap();
        Some(vec![
            "/bin/sh".to_owned(),
            path.to_str().unwrap().to_owned(),
            self.0.to_str().unwrap().to_owned(),
        ])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn pending(what: &str) -> Pending {
    let alert = Alert {
        schema: ALERT_SCHEMA.to_owned(),
        rule: Rule::Unauthorised,
        server: "s".to_owned(),
        tool: "t".to_owned(),
        call: Some("1".to_owned()),
        who: "w".to_owned(),
        attempted: rfc3339(SystemTime::now()),
        what: what.to_owned(),
        observed: None,
        usual: None,
        count: 1,
        recorded: true,
    };
    Pending { alert, attempted: micros(SystemTime::now()) }
}

fn hooks(alerts: Alerts) -> Hooks {
    Hooks::new(Some(alerts), identity::effective().0)
}

/// Looks after the program, as the guard does, until so many alerts are done.
fn wait(hooks: &mut Hooks, mut done: Vec<Told>, count: usize) -> Vec<Told> {
    while done.len() < count {
        let left = hooks.deadline().unwrap().saturating_duration_since(Instant::now());
        let mut interests = [Interest { fd: hooks.pidfd(), events: libc::POLLIN, ready: 0 }];
        descriptor::poll(&mut interests, Some(left)).unwrap();
        done.extend(hooks.look(Instant::now()));
    }
    done
}

fn failed(told: &Told, hook: &str) -> Option<String> {
    told.hooks.iter().find(|found| found.hook == hook).unwrap().failed.clone()
}

#[test]
fn file_and_log_have_the_alert_when_it_is_told() {
    let place = Place::new();
    let (file, socket) = (place.0.join("alerts"), place.0.join("log"));
    let log = UnixDatagram::bind(&socket).unwrap();
    let mut hooks = hooks(Alerts { file: Some(file.clone()), syslog: true, ..Alerts::default() });
    hooks.log_socket = socket;
    for what in ["one", "two\n\u{1b}[31m"] {
        let [told] = hooks.tell(pending(what)).try_into().unwrap();
        assert_eq!((failed(&told, "file"), failed(&told, "syslog")), (None, None));
    }
    let text = fs::read_to_string(&file).unwrap();
    let alerts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (alerts.len(), &alerts[0]["rule"], &alerts[1]["tool"]),
        (2, &"unauthorised".into(), &"t".into())
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut datagram = [0; 1024];
    let length = log.recv(&mut datagram).unwrap();
    let line = String::from_utf8_lossy(&datagram[..length]);
    assert!(line.starts_with("<84>toolcell[") && line.ends_with("]: unauthorised s/t x1: one"), "{line}");
    let length = log.recv(&mut datagram).unwrap();
    assert!(!datagram[..length].iter().any(u8::is_ascii_control));
}

#[test]
fn what_nobody_took_is_not_said_to_be_told() {
    let place = Place::new();
    let file = place.0.join("alerts");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut hooks = hooks(Alerts { file: Some(file), syslog: true, ..Alerts::default() });
    hooks.log_socket = place.0.join("nobody");
    let [told] = hooks.tell(pending("one")).try_into().unwrap();
    assert!(failed(&told, "file").unwrap().contains("others can read"));
    assert!(failed(&told, "syslog").unwrap().contains("nobody"));
}

#[test]
fn a_program_gets_each_alert_on_stdin_and_a_clean_environment() {
    let place = Place::new();
    let command = place.script("cat >> \"$1/got\"; env > \"$1/env\"; pwd > \"$1/pwd\"\n");
    let mut hooks = hooks(Alerts { command, ..Alerts::default() });
    let mut done = hooks.tell(pending("one"));
    done.extend(hooks.tell(pending("two")));
    assert!(done.is_empty());
    let done = wait(&mut hooks, done, 2);
    assert!(done.iter().all(|told| failed(told, "command").is_none()));
    assert!(hooks.deadline().is_none());
    let got = fs::read_to_string(place.0.join("got")).unwrap();
    let what: Vec<String> = got
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["what"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(what, ["one", "two"]);
    let environment = fs::read_to_string(place.0.join("env")).unwrap();
    assert!(!environment.contains("CARGO"), "{environment}");
    assert_eq!(fs::read_to_string(place.0.join("pwd")).unwrap(), "/\n");
}

#[test]
fn a_program_that_fails_stays_or_is_not_there_is_told_of() {
    let place = Place::new();
    let hooks_of = |text: &str, patience| {
        let command = place.script(text);
        let mut hooks = hooks(Alerts { command, patience, ..Alerts::default() });
        let done = hooks.tell(pending("one"));
        wait(&mut hooks, done, 1)
    };
    let long = Duration::from_secs(60);
    assert_eq!(failed(&hooks_of("exit 3", long)[0], "command").unwrap(), "exit status: 3");
    let late = hooks_of("sleep 600 & echo $! > \"$1/child\"; wait", Duration::from_secs(1));
    assert_eq!(failed(&late[0], "command").unwrap(), "it took longer than 1s, and was killed");
    // What it has started is killed with it, and is somebody else's zombie at most.
    let child = fs::read_to_string(place.0.join("child")).unwrap();
    let bound = Instant::now() + Duration::from_secs(60);
    while let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", child.trim()))
        && !stat.contains(") Z ")
    {
        assert!(Instant::now() < bound, "{stat}");
        std::thread::yield_now();
    }
    let command = Some(vec!["/no/such/program".to_owned()]);
    let mut absent = hooks(Alerts { command, ..Alerts::default() });
    let done = absent.tell(pending("one"));
    assert!(failed(&done[0], "command").unwrap().contains("No such file"));
}

#[test]
fn what_waits_for_a_program_is_bounded_and_given_up_with_a_reason() {
    let place = Place::new();
    let command = place.script("sleep 600");
    let mut hooks = hooks(Alerts { command, ..Alerts::default() });
    let full: Vec<Told> = (0..WAITING + 3).flat_map(|_| hooks.tell(pending("one"))).collect();
    assert_eq!(full.len(), 2);
    assert!(failed(&full[0], "command").unwrap().contains("wait for it already"));
    let left = hooks.give_up();
    assert_eq!(left.len(), WAITING + 1);
    assert!(failed(&left[0], "command").unwrap().contains("was killed"));
    assert!(failed(&left[1], "command").unwrap().contains("before its turn"));
}
