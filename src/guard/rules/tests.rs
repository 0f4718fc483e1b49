//! Each rule with what it is there for, with what it must not see, and switched off.

use super::*;
use crate::call::Call;

fn event(tool: &str, wall_us: u64) -> Event {
    let call = Call::example(tool);
    Event {
        tool: call.tool().map(str::to_owned),
        call,
        began: 0,
        ended: wall_us,
        status: "completed".to_owned(),
        ran: true,
        wall_us,
        memory: Some(wall_us * 1000),
        seen: vec![],
        layers: BTreeMap::new(),
        unrecorded: None,
    }
}

fn refused(layer: Layer, operation: &str, object: &str) -> Event {
    let (operation, object) = (operation.to_owned(), object.to_owned());
    let seen = vec![Seen { layer, limit: None, operation, object }];
    Event { seen, layers: BTreeMap::from([(layer, 1)]), ..event("t", 1000) }
}

fn off() -> Anomalies {
    Anomalies {
        refusals: None,
        destination: false,
        memory: None,
        time: None,
        first_call: false,
        unauthorised: false,
        unrecorded: false,
        after: 5,
    }
}

fn found(tool: &mut Tool, event: &Event, rules: &Anomalies) -> Vec<Rule> {
    tool.learn(event, rules).into_iter().map(|anomaly| anomaly.rule).collect()
}

#[test]
fn refusals_in_a_row_are_told_each_time_there_are_so_many() {
    let rules = Anomalies { refusals: Some(3), ..off() };
    let mut tool = Tool::default();
    let refusal = refused(Layer::Seccomp, "ptrace", "");
    let row: Vec<usize> = (0..7).map(|_| found(&mut tool, &refusal, &rules).len()).collect();
    assert_eq!(row, [0, 0, 1, 0, 0, 1, 0]);
    // A limit that was hit is no refusal, and ends the row.
    let mut limit = refused(Layer::Cgroup, "allocate", "");
    limit.seen[0].limit = Some(Limit::Memory);
    for event in [&refusal, &limit, &refusal, &refusal] {
        assert_eq!(found(&mut tool, event, &rules), []);
    }
    assert_eq!(found(&mut tool, &refusal, &rules), [Rule::Refusals]);
    assert_eq!(found(&mut Tool::default(), &refusal, &off()), []);
}

#[test]
fn a_destination_is_told_once() {
    let rules = Anomalies { destination: true, ..off() };
    let mut tool = Tool::default();
    let there = refused(Layer::Landlock, "net.connect_tcp", "10.0.0.1 port 443");
    let inet = refused(Layer::Seccomp, "socket", "AF_INET");
    for (event, expected) in [(&there, 1), (&there, 0), (&inet, 1), (&inet, 0), (&there, 0)] {
        assert_eq!(found(&mut tool, event, &rules).len(), expected);
    }
    assert_eq!(found(&mut tool, &refused(Layer::Landlock, "fs.read_file", "/a"), &rules), []);
    let told: usize = (0..200)
        .map(|port| {
            found(&mut tool, &refused(Layer::Landlock, "net.connect_tcp", &port.to_string()), &rules).len()
        })
        .sum();
    assert_eq!((told, tool.destinations.len()), (DESTINATIONS - 2, DESTINATIONS));
}

#[test]
fn time_and_memory_are_far_off_only_against_enough_calls() {
    let rules = Anomalies { memory: Some(10), time: Some(10), ..off() };
    let mut tool = Tool::default();
    for _ in 0..4 {
        assert_eq!(found(&mut tool, &event("t", 1000), &rules), []);
    }
    // Four calls are too few to know what is usual.
    assert_eq!(found(&mut tool, &event("t", 90_000), &rules), []);
    assert_eq!(found(&mut tool, &event("t", 90_000), &rules), [Rule::Memory, Rule::Time]);
    let anomaly = tool.learn(&event("t", 80_000), &rules).pop().unwrap();
    assert_eq!((anomaly.observed, anomaly.usual), (Some(80_000), Some(1000)));
    assert_eq!(anomaly.what, "it took 80 ms, and usually 1");
    assert_eq!(found(&mut tool, &event("t", 1900), &rules), []);
    // What did not run has neither.
    assert_eq!(found(&mut tool, &Event { ran: false, ..event("t", 90_000) }, &rules), []);
    assert_eq!(found(&mut tool, &event("t", 90_000), &Anomalies { memory: None, ..rules }), [Rule::Time]);
    for _ in 0..200 {
        tool.learn(&event("t", 1000), &off());
    }
    assert_eq!((tool.times.len(), tool.memory.len()), (SAMPLES, SAMPLES));
}

#[test]
fn an_attempt_and_a_record_that_is_missing_are_told_at_once() {
    let rules = Anomalies { unauthorised: true, unrecorded: true, ..off() };
    let attempt = refused(Layer::Access, "call what is not allowed", "");
    let anomalies = at_once(&attempt, &rules);
    assert_eq!(anomalies[0].what, "a request was refused: call what is not allowed");
    let missing = Event { unrecorded: Some("no space".to_owned()), ..event("t", 1) };
    assert_eq!(at_once(&missing, &rules)[0].rule, Rule::Unrecorded);
    assert!(at_once(&attempt, &off()).is_empty() && at_once(&missing, &off()).is_empty());
    assert!(at_once(&event("t", 1), &Anomalies::default()).is_empty());
}

#[test]
fn a_tool_that_is_kept_out_says_nothing_about_itself() {
    let rules = Anomalies { refusals: Some(1), ..off() };
    let kept = Event { status: "refused".to_owned(), ..refused(Layer::Quarantine, "call", "") };
    assert_eq!(found(&mut Tool::default(), &kept, &rules), []);
    assert_eq!((kept.counted(), refused(Layer::Seccomp, "x", "").counted()), (0, 1));
    // Wrong arguments are the caller's, a result that does not fit is the tool's.
    let arguments = refused(Layer::Arguments, "x", "");
    assert_eq!((arguments.counted(), Event { ran: false, ..arguments }.counted()), (1, 0));
}
