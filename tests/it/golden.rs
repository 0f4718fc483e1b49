//! Plans and their explanations for fixed hosts, as they were reviewed.
//!
//! Neighbours: `plan::build`, `plan::explain`. Never: looks at this host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toolcell::host::probe::Failed;
use toolcell::host::view::{Seen, View};
use toolcell::host::{Cgroup, Facts, NoCgroup, Untold};
use toolcell::plan::build::{Request, build};
use toolcell::plan::step::{Access, Kind, Step};
use toolcell::plan::{Plan, Refusal, explain, seccomp};
use toolcell::policy::mode::Mode;
use toolcell::policy::network::Allowed;
use toolcell::policy::{Floor, PathRule, Policy, Writes};
use toolcell::sys::Errno;

fn policy() -> Policy {
    let mut policy = Policy::nothing("golden");
    policy.environment.set("HOME", "/tmp");
    policy.environment.pass("LANG");
    policy.environment.pass("SECRET");
    policy
}

fn seen(path: &str, kind: Kind, write: bool, data: bool) -> Seen {
    Seen {
        target: path.into(),
        source: path.into(),
        kind,
        access: Access { write, execute: !data, names: false },
        owner: (1001, 1001),
        data,
        public: !data,
        why: "a test".to_owned(),
    }
}

/// A work tree with hidden and narrower parts, and a link to a file elsewhere.
fn view() -> View {
    let mut link = seen("/home/u/link", Kind::File, false, true);
    link.source = "/data/real".into();
    link.public = true;
    let absent = PathRule {
        path: "/home/u/p/sub/.mcp.json".into(),
        why: String::new(),
        origin: "a test".to_owned(),
        optional: false,
    };
    View {
        granted: vec![
            seen("/home/u/p", Kind::Directory, true, true),
            seen("/home/u/p/.git/config", Kind::File, false, true),
            link,
        ],
        hidden: vec![seen("/home/u/p/.git/hooks", Kind::Directory, false, true)],
        absent: vec![absent],
        protected: vec![seen("/home/u/p/.npmrc", Kind::File, false, true)],
        vacant: vec![
            (seen("/home/u/p/.git/commondir", Kind::File, false, true), Some(".\n")),
            (seen("/home/u/p/.vscode", Kind::Directory, false, true), None),
        ],
    }
}

fn facts(uid: u32, cgroup: Result<Cgroup, NoCgroup>) -> Facts {
    let payload = if uid == 0 { (0x7000_1234, 0x7000_1234) } else { (uid, uid) };
    Facts {
        uid,
        gid: uid,
        payload,
        landlock_abi: 7,
        cgroup,
        no_namespaces: None,
        denials: Err(Untold::NotAsked),
        temporary: "/run/user/1001".into(),
    }
}

fn v1() -> Cgroup {
    let hierarchy = |name: &str| (name.to_owned(), PathBuf::from(format!("/sys/fs/cgroup/{name}/own")));
    Cgroup::V1(["memory", "pids", "cpu"].map(hierarchy).to_vec())
}

fn no_cgroup() -> NoCgroup {
    NoCgroup {
        why: "no cgroup v2 hierarchy is mounted".to_owned(),
        hint: "mount one".to_owned(),
        failed: None,
    }
}

fn plan(policy: &Policy, facts: &Facts) -> Result<Plan, Refusal> {
    plan_of(policy, facts, &view())
}

fn plan_of(policy: &Policy, facts: &Facts, view: &View) -> Result<Plan, Refusal> {
    let environment =
        BTreeMap::from([("LANG", "C.UTF-8"), ("OTHER", "x")].map(|(n, v)| (n.to_owned(), v.to_owned())));
    let mut manager = seen("/usr/bin/apt", Kind::File, false, false);
    manager.access.execute = true;
    build(&Request {
        policy,
        facts,
        view,
        runtime: &[seen("/usr", Kind::Directory, false, false)],
        hidden: &[manager],
        links: &[("/lib".into(), "usr/lib".into())],
        program: Path::new("/usr/bin/server"),
        argv: &["server".to_owned(), "--stdio".to_owned()],
        path: &["/usr/bin".into()],
        runtime_environment: &BTreeMap::new(),
        environment: &environment,
        persist: None,
        six: true,
        cwd: Path::new("/home/u/p"),
    })
}

fn accepting(floor: Floor) -> Policy {
    Policy { floor, ..policy() }
}

/// A host without namespaces.
fn alone(cgroup: Result<Cgroup, NoCgroup>) -> Facts {
    let failed = Failed { call: "clone3".into(), object: String::new(), errno: Errno(libc::EPERM) };
    Facts { no_namespaces: Some(failed), ..facts(1001, cgroup) }
}

/// What Landlock alone can hold.
fn plain() -> View {
    let granted = view().granted.into_iter().filter(|seen| !seen.target.ends_with("config")).collect();
    View { granted, ..View::default() }
}

/// One plan of each kind of host.
fn reviewing() -> Policy {
    let mut policy = policy();
    policy.filesystem.writes = Writes::Review;
    policy
}

/// A policy that lets out to a name, a pattern and addresses of both families, and into the cell at a port.
fn open() -> Policy {
    let mut policy = policy();
    policy.network.allow = ["api.example:443", "*.example.com:443", "10.0.0.5:5432", "[2001:db8::1]:443"]
        .map(|text| Allowed { destination: text.parse().unwrap(), origin: "a test".to_owned() })
        .into();
    policy.network.listen = ["8080", "8080=/run/user/1001/x.sock"].map(|text| text.parse().unwrap()).into();
    policy
}

/// In the host's network.
fn outside(floor: Floor) -> Policy {
    let mut policy = accepting(floor);
    policy.network.mode = Mode::Host;
    policy
}

pub(crate) fn plans() -> Vec<Plan> {
    let (full, less) = (policy(), accepting(Floor::NoCgroup));
    [
        plan(&full, &facts(0, Ok(v1()))),
        plan(&full, &facts(0, Ok(Cgroup::V2("/sys/fs/cgroup/own".into())))),
        plan(&full, &facts(1001, Ok(v1()))),
        plan(&less, &facts(1001, Err(no_cgroup()))),
        plan_of(&accepting(Floor::Landlock), &alone(Ok(v1())), &plain()),
        plan(&reviewing(), &facts(0, Ok(v1()))),
        plan(&open(), &facts(0, Ok(v1()))),
        plan(&outside(Floor::HostNetwork), &facts(0, Ok(v1()))),
        plan_of(&outside(Floor::HostNetworkLandlock), &alone(Ok(v1())), &plain()),
    ]
    .map(Result::unwrap)
    .into()
}

/// The plan without the instructions of the filter, which have tests of their own.
fn text(mut plan: Plan) -> String {
    for step in &mut plan.steps {
        if let Step::Seccomp { program, .. } = step {
            assert!(program.len() > 100);
            program.truncate(1);
        }
    }
    serde_json::to_string_pretty(&plan).unwrap()
}

#[test]
fn plans_begin_as_an_init_can_without_knowing_them() {
    let with_namespaces = |plan: &Plan| {
        !plan.steps.iter().any(|step| matches!(step, Step::Clone { namespaces } if namespaces.is_empty()))
    };
    for plan in plans().into_iter().filter(with_namespaces) {
        let root = plan.steps.iter().any(|step| matches!(step, Step::SetIds { .. }));
        let mode = if plan.floor.has_own_network() { Mode::Cell } else { Mode::Host };
        let beginning = toolcell::plan::prelude::prelude(root, (1001, 1001), mode).steps;
        let launchers = |step: &&Step| {
            matches!(step, Step::CreateCgroup { .. } | Step::ReserveName { .. } | Step::ListenOutside { .. })
        };
        let rest: Vec<_> = plan.steps.iter().skip_while(launchers).take(beginning.len()).collect();
        assert_eq!(rest, beginning.iter().collect::<Vec<_>>());
    }
}

#[test]
fn plans_are_as_they_were_reviewed() {
    let [root_v1, root_v2, user_v1, user_alone, no_namespaces, reviewed, opened, outer, outer_alone] =
        plans().try_into().unwrap();
    insta::assert_snapshot!("plan_root_v1", text(root_v1.clone()));
    insta::assert_snapshot!("explain_root_v1", explain::text(&policy(), &root_v1));
    insta::assert_snapshot!("explain_root_v2", explain::text(&policy(), &root_v2));
    insta::assert_snapshot!("explain_user_v1_delegated", explain::text(&policy(), &user_v1));
    insta::assert_snapshot!(
        "explain_user_no_cgroup",
        explain::text(&accepting(Floor::NoCgroup), &user_alone)
    );
    insta::assert_snapshot!("explain_root_v1_review", explain::text(&reviewing(), &reviewed));
    insta::assert_snapshot!("explain_root_v1_doors", explain::text(&open(), &opened));
    let of_host = |floor, plan: &Plan| explain::text(&outside(floor), plan);
    insta::assert_snapshot!("explain_root_v1_host_network", of_host(Floor::HostNetwork, &outer));
    insta::assert_snapshot!(
        "explain_user_no_namespaces_host_network",
        of_host(Floor::HostNetworkLandlock, &outer_alone)
    );
    insta::assert_snapshot!(
        "explain_user_no_namespaces",
        explain::text(&accepting(Floor::Landlock), &no_namespaces)
    );
}

/// With `INSTA_UPDATE=always` they are written anew.
#[test]
fn the_fuzzers_seeds_are_these_plans() {
    for (number, plan) in plans().into_iter().enumerate() {
        // The first byte says who reads it.
        let seed = [vec![3], toolcell::plan::written(plan.floor, &plan.steps).unwrap()].concat();
        let path = crate::project().join(format!("fuzz/corpus/protocol/seed-plan-{number}"));
        if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
            std::fs::write(path, seed).unwrap();
        } else {
            assert!(
                std::fs::read(&path).ok() == Some(seed),
                "{}: run this with INSTA_UPDATE=always",
                path.display()
            );
        }
    }
}

#[test]
fn equal_inputs_give_equal_plans() {
    for (first, second) in plans().into_iter().zip(plans()) {
        assert_eq!(serde_json::to_vec(&first).unwrap(), serde_json::to_vec(&second).unwrap());
    }
}

#[test]
fn a_host_below_the_floor_is_refused() {
    let refusal = plan(&policy(), &facts(1001, Err(no_cgroup()))).unwrap_err();
    assert_eq!(refusal.to_string(), "this host reaches the floor `no-cgroup`, the profile asks for `full`");
    assert_eq!(refusal.hint().as_deref(), Some("mount one"));
    let blind = Facts { landlock_abi: 0, ..facts(1001, Ok(v1())) };
    assert!(matches!(plan(&policy(), &blind), Err(Refusal::NoLandlock)));
}

#[test]
fn the_hosts_network_is_spelled_out_twice_and_costs_nothing_else() {
    let refused = |floor: Floor, facts: &Facts| plan_of(&outside(floor), facts, &plain()).unwrap_err();
    for floor in Floor::OWN_NETWORK {
        let accepted = floor.with_host_network().name();
        let refusal = refused(floor, &alone(Ok(v1())));
        assert_eq!(refusal, Refusal::HostNetwork { wanted: floor });
        assert!(refusal.hint().unwrap().contains(&format!("write `floor = \"{accepted}\"` at the top")));
    }
    // Whoever accepts the host's network has not accepted to be without limits, or without a private root.
    let without = facts(1001, Err(no_cgroup()));
    let told = refused(Floor::HostNetwork, &without).to_string();
    assert_eq!(
        told,
        "this host reaches the floor `host-network-no-cgroup`, the profile asks for `host-network`"
    );
    let rung = |floor, facts: &Facts| plan_of(&outside(floor), facts, &plain()).unwrap().floor;
    assert_eq!(rung(Floor::HostNetworkNoCgroup, &without), Floor::HostNetworkNoCgroup);
    assert_eq!(rung(Floor::HostNetworkLandlock, &without), Floor::HostNetworkNoCgroup);
    assert_eq!(rung(Floor::HostNetworkLandlock, &alone(Ok(v1()))), Floor::HostNetworkLandlock);
    assert_eq!(rung(Floor::HostNetworkNoCgroup, &facts(0, Ok(v1()))), Floor::HostNetwork);
    // Nor does such a floor cost a policy without it anything.
    assert_eq!(plan(&accepting(Floor::HostNetwork), &facts(0, Ok(v1()))).unwrap(), plans().remove(0));
    assert!(matches!(plan(&accepting(Floor::HostNetwork), &without), Err(Refusal::Floor { .. })));
    for abi in 1..=5 {
        let old = Facts { landlock_abi: abi, ..facts(0, Ok(v1())) };
        assert_eq!(plan(&outside(Floor::HostNetwork), &old), Err(Refusal::OldScope { abi }));
    }
}

#[test]
fn what_an_old_landlock_does_not_hold_the_filter_refuses() {
    let refused = |landlock_abi: u32, policy: &Policy| {
        let plan = plan(policy, &Facts { landlock_abi, ..facts(0, Ok(v1())) }).unwrap();
        let filter = plan.steps.iter().find_map(|step| match step {
            Step::Seccomp { program, .. } => Some(program),
            _ => None,
        });
        let listen = seccomp::number("listen").unwrap();
        seccomp::refusal(filter.unwrap(), seccomp::AUDIT_ARCH_X86_64, listen, &[0; 6])
    };
    assert_eq!(
        (refused(3, &policy()), refused(4, &policy()), refused(4, &open())),
        (Some(libc::EPERM), None, None)
    );
    let old = Facts { landlock_abi: 3, ..facts(0, Ok(v1())) };
    assert_eq!(plan(&open(), &old).unwrap_err(), Refusal::OldPorts { port: 8080, abi: 3 });
}

#[test]
fn what_only_a_private_root_can_hold_is_refused_without_one() {
    let lowest = accepting(Floor::Landlock);
    let host = alone(Err(no_cgroup()));
    let refused = |view: &View| plan_of(&lowest, &host, view).unwrap_err().to_string();
    let overlays = Policy { floor: Floor::Landlock, ..reviewing() };
    assert_eq!(
        plan_of(&overlays, &host, &plain()).unwrap_err().to_string(),
        "without a private root, what is written to `/home/u/p` can only go there directly"
    );
    let file = View { granted: vec![seen("/home/u/f", Kind::File, true, true)], ..View::default() };
    assert_eq!(
        plan_of(&reviewing(), &facts(0, Ok(v1())), &file).unwrap_err().to_string(),
        "`/home/u/f` is a file, and what is written to a single file can only go there directly"
    );
    assert_eq!(
        refused(&View { hidden: view().hidden, ..plain() }),
        "without a private root, `/home/u/p/.git/hooks` cannot be less visible than the grant above it allows"
    );
    let narrower = View { granted: view().granted, ..plain() };
    assert_eq!(
        refused(&narrower),
        "without a private root, `/home/u/p/.git/config` cannot be more restricted than the grant above it allows"
    );
    let absent = View { absent: view().absent, ..plain() };
    assert!(refused(&absent).contains("/home/u/p/sub/.mcp.json"));
    assert_eq!(
        refused(&View { vacant: view().vacant, ..plain() }),
        "without a private root, what the host would run from a writable directory cannot be protected: \
         `/home/u/p/.git/commondir` and 1 more"
    );
    assert!(refused(&View { protected: view().protected, ..plain() }).ends_with(": `/home/u/p/.npmrc`"));
    assert_eq!(
        plan_of(&Policy { floor: Floor::Landlock, ..open() }, &host, &plain()).unwrap_err().to_string(),
        "without a network namespace, `api.example:443` cannot be the only way out"
    );
    let mut heard = lowest.clone();
    heard.network.listen = vec!["8080".parse().unwrap()];
    assert_eq!(
        plan_of(&heard, &host, &plain()).unwrap_err().to_string(),
        "without a network namespace, port 8080 would be the host's and not the cell's"
    );
    // A profile that does not accept the rung gets a plan with namespaces, and the launch says what is wrong.
    assert_eq!(plan(&accepting(Floor::NoCgroup), &host).unwrap().floor, Floor::NoCgroup);
    let old = Facts { landlock_abi: 5, ..host.clone() };
    assert_eq!(plan_of(&lowest, &old, &plain()).unwrap_err(), Refusal::OldLandlock { abi: 5 });
    // Where namespaces were found, or not tried, they are used.
    assert_eq!(plan_of(&lowest, &facts(1001, Ok(v1())), &plain()).unwrap().floor, Floor::Full);
}

#[test]
fn what_is_narrower_comes_after_what_it_narrows() {
    for plan in plans() {
        let binds: Vec<&PathBuf> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Bind { target, .. } | Step::Hide { path: target, .. } => Some(target),
                _ => None,
            })
            .collect();
        for (index, path) in binds.iter().enumerate() {
            assert!(
                !binds[..index].iter().any(|earlier| earlier.starts_with(path) && earlier != path),
                "{path:?}"
            );
        }
    }
}
