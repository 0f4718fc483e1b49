//! What is typed is what is held; what contradicts itself is refused.

use super::*;

fn parsed(line: &[&str]) -> Result<Invocation, CliError> {
    let words = std::iter::once("toolcell").chain(line.iter().copied()).map(OsString::from);
    parse(words).map(|command_line| command_line.invocation)
}

fn refused(line: &[&str]) -> String {
    let error = parsed(line).unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

#[test]
fn the_description_is_consistent() {
    definition::command().debug_assert();
}

#[test]
fn a_servers_own_options_are_left_alone() {
    let run = parsed(&["run", "--jobs", "3", "--", "srv", "--profile", "x", "--", "-h"]).unwrap();
    assert_eq!(
        run,
        Invocation::Run(RunArgs {
            server: Server::Command(words(&["srv", "--profile", "x", "--", "-h"])),
            jobs: Some(Typed { option: "--jobs", text: "3".to_owned() }),
            spares: None,
            spares_memory: None,
            spares_idle: None,
            state: None,
            no_validate: false,
            lock: None,
            lists_only: false,
            shared: SharedArgs::default(),
        })
    );
}

#[test]
fn a_command_without_options_is_what_the_description_makes_of_it() {
    let lines: [&[&str]; 9] = [
        &["exec", "--", "true"],
        &["exec", "--", "sh", "-c", "exit 3", "--", "--profile"],
        &["exec", "--", "--help"],
        &["exec", "--", ""],
        &["exec", "--", "--", "x"],
        &["exec", "--"],
        &["exec", "true"],
        &["exec"],
        &["run", "--", "srv"],
    ];
    for line in lines {
        let words: Vec<OsString> = words(&[&["toolcell"], line].concat());
        let told = |answer: Result<CommandLine, CliError>| answer.map_err(|error| error.to_string());
        assert_eq!(told(parse(words.clone())), told(described(words)), "{line:?}");
    }
}

#[test]
fn a_configured_server_may_be_named() {
    for (line, expected) in
        [(&["run", "--config", "f", "git"][..], Some("git")), (&["run", "--config", "f"][..], None)]
    {
        let Invocation::Run(run) = parsed(line).unwrap() else { panic!("not `run`") };
        let name = expected.map(str::to_owned);
        assert_eq!(run.server, Server::Configured { config: PathBuf::from("f"), name });
    }
}

#[test]
fn a_server_comes_from_one_place_only() {
    let lines: [&[&str]; 3] = [&["run"], &["run", "srv"], &["run", "--config", "f", "--", "srv"]];
    insta::assert_snapshot!(lines.map(refused).join("\n"));
}

#[test]
fn values_are_kept_as_typed_and_in_order() {
    let line = [
        "exec",
        "--read",
        "b",
        "--read",
        "a",
        "--env",
        "A",
        "--env",
        "B=1=2",
        "--memory",
        "lots",
        "--floor",
        "no-cgroup",
        "--report",
        "r",
        "--audit",
        "l",
        "--",
        "ls",
    ];
    let text = |option, text: &str| Typed { option, text: text.to_owned() };
    assert_eq!(
        parsed(&line).unwrap(),
        Invocation::Exec(ExecArgs {
            command: words(&["ls"]),
            report: Some(PathBuf::from("r")),
            shared: SharedArgs {
                read: vec![PathBuf::from("b"), PathBuf::from("a")],
                env: vec![text("--env", "A"), text("--env", "B=1=2")],
                memory: Some(text("--memory", "lots")),
                floor: Some(Floor::NoCgroup),
                audit: Some(PathBuf::from("l")),
                ..SharedArgs::default()
            },
        })
    );
}

#[test]
fn every_floor_can_be_typed() {
    for floor in Floor::ALL {
        let Invocation::Exec(exec) = parsed(&["exec", "--floor", floor.name(), "--", "x"]).unwrap() else {
            panic!("not `exec`")
        };
        assert_eq!(exec.shared.floor, Some(floor));
    }
}

#[test]
fn color_is_accepted_before_and_after_the_command() {
    for line in [["--color", "never", "demo"], ["demo", "--color", "never"]] {
        let words = std::iter::once("toolcell").chain(line).map(OsString::from);
        assert_eq!(parse(words).unwrap().color, ColorChoice::Never);
    }
}

#[test]
fn a_command_that_is_not_utf8_is_kept() {
    use std::os::unix::ffi::OsStringExt as _;
    let odd = OsString::from_vec(vec![b'x', 0xff]);
    let line = ["toolcell", "exec", "--"].map(OsString::from).into_iter().chain([odd.clone()]);
    let Invocation::Exec(exec) = parse(line).unwrap().invocation else { panic!("not `exec`") };
    assert_eq!(exec.command, [odd]);
}

#[test]
fn explain_takes_a_command_after_the_dashes() {
    assert_eq!(
        parsed(&["profile", "explain", "default", "--json", "--", "ls", "--json"]).unwrap(),
        Invocation::Profile(ProfileArgs::Explain {
            profile: OsString::from("default"),
            command: words(&["ls", "--json"]),
            lost: false,
            json: true,
        })
    );
}

#[test]
fn a_mistake_is_named_with_what_to_type_instead() {
    let lines: [&[&str]; 12] = [
        &["exec", "ls"],
        &["exec"],
        &["exec", "--"],
        &["exec", "--memry", "3", "--", "x"],
        &["exec", "--memory"],
        &["exec", "--memory", "1", "--memory", "2", "--", "x"],
        &["exec", "--floor", "ful", "--", "x"],
        &["exec", "--floor", "none", "--", "x"],
        &["exce", "--", "x"],
        &["frobnicate"],
        &["demo", "--json=yes"],
        &["profile", "show"],
    ];
    insta::assert_snapshot!(lines.map(|line| format!("{line:?}\n  {}", refused(line))).join("\n"));
}
