//! A step that fails refuses the launch, names itself and the kernel's answer, and runs nothing; so does a layer
//! that `verify` is to find and that is not there.
//!
//! Neighbours: `layers` shows what the layers do when they are there. Never: fails a step by hand where the kernel can.

use std::path::Path;

use toolcell::outcome::Layer;
use toolcell::plan::step::{Attempts, CgroupDirectory, Kind, LandlockRule, Namespace, Resource, Step};
use toolcell::plan::{Plan, seccomp};

use super::runner::{self, Outcome};
use super::scene::{Scene, is_root, needs_cgroup, needs_root, note};

/// A plan whose payload would leave a file behind, and the file.
fn plan(scene: &Scene) -> (Plan, String) {
    let data = scene.directory("data");
    let sign = scene.path("data/ran");
    let profile = format!("filesystem.write = [\"{data}\"]\nfilesystem.deny = [\"{data}/a\"]\n");
    (scene.plan(&profile, &[format!("create,{sign}")]), sign)
}

/// Runs a plan that was changed, and looks that nothing of the payload ran and no name on the host stayed.
fn refused(change: impl FnOnce(&mut Vec<Step>)) -> Outcome {
    let scene = Scene::new();
    let (mut plan, sign) = plan(&scene);
    change(&mut plan.steps);
    let outcome = scene.run(&plan);
    assert!(!Path::new(&sign).exists(), "the payload ran");
    assert!(!Path::new(&scene.path("data/a")).exists(), "a place of a denied name is left");
    outcome
}

fn at(steps: &[Step], name: &str) -> usize {
    steps.iter().position(|step| step.name() == name).unwrap()
}

#[test]
fn the_plan_that_is_broken_below_runs_whole() {
    let scene = Scene::new();
    let (plan, sign) = plan(&scene);
    let outcome = scene.run(&plan);
    assert!(outcome.failed.is_none() && Path::new(&sign).exists(), "{outcome:?}");
}

/// The calls of each step that the child runs, for a filter to refuse.
const CALLS: &[(&str, &[&str])] = &[
    ("join-cgroup", &["unshare"]),
    ("map-ids", &["write"]),
    ("isolate-mounts", &["mount"]),
    ("mount-root", &["fsopen"]),
    ("make-directory", &["mkdirat", "mkdir"]),
    ("make-file", &["openat2"]),
    ("make-symlink", &["symlinkat", "symlink"]),
    ("bind", &["open_tree"]),
    ("hide", &["open_tree"]),
    ("mount-scratch", &["fsopen"]),
    ("mount-proc", &["fsopen"]),
    ("pivot-root", &["pivot_root"]),
    ("loopback-up", &["socket"]),
    ("set-hostname", &["sethostname"]),
    ("set-rlimit", &["setrlimit", "prlimit64"]),
    ("new-session", &["setsid"]),
    ("close-descriptors", &["close_range"]),
    ("set-ids", &["setgroups"]),
    ("unshare-user", &["unshare"]),
    ("forbid-user-namespaces", &["openat"]),
    ("drop-capabilities", &["capset"]),
    ("no-new-privileges", &["prctl"]),
    ("landlock", &["landlock_create_ruleset"]),
    ("verify", &["openat", "open"]),
    ("exec", &["chdir"]),
];

/// `SECCOMP_RET_ERRNO` with an errno, here `EPERM`.
const ANSWERED: u32 = 0x0005_0000;
const REFUSED: u32 = ANSWERED | libc::EPERM.cast_unsigned();
/// `SECCOMP_RET_KILL_PROCESS`.
const KILLED: u32 = 0x8000_0000;

/// A filter that lets everything through but these calls.
fn filter(calls: &[&str], answer: u32) -> Vec<(u16, u8, u8, u32)> {
    let mut program = vec![(0x20, 0, 0, 0)];
    for name in calls {
        program.push((0x15, 0, 1, seccomp::number(name).unwrap()));
        program.push((0x06, 0, 0, answer));
    }
    program.push((0x06, 0, 0, 0x7fff_0000));
    program
}

/// There is one filter in a plan, and here it comes right before the step.
fn break_before(steps: &mut Vec<Step>, name: &str, program: Vec<(u16, u8, u8, u32)>) {
    steps.retain(|step| !matches!(step, Step::Seccomp { .. }));
    // `verify` would miss the filter if it came after it.
    let index = at(steps, if name == "exec" { "verify" } else { name });
    steps.splice(
        index..index,
        [Step::NoNewPrivileges, Step::Seccomp { program, observe: None, attempts: Attempts::Untold }],
    );
}

#[test]
fn init_killed_in_any_step_leaves_nothing() {
    let scene = Scene::new();
    let (plan, sign) = plan(&scene);
    for (name, calls) in CALLS.iter().filter(|(name, _)| plan.steps.iter().any(|step| step.name() == *name)) {
        let mut killed = plan.clone();
        break_before(&mut killed.steps, name, filter(calls, KILLED));
        let outcome = runner::run_times(Path::new(&scene.path("")), &killed, 2);
        let failed = outcome.failed.as_ref().unwrap_or_else(|| panic!("`{name}` was survived: {outcome:?}"));
        assert_eq!((failed.step.as_str(), failed.errno.0), ("verify", libc::ECHILD), "{name}: {failed}");
        assert_eq!(outcome.census[0], outcome.census[1], "{name}");
        assert!(!Path::new(&sign).exists() && !Path::new(&scene.path("data/a")).exists(), "{name}");
    }
    // The next one works.
    assert!(scene.run(&plan).failed.is_none() && Path::new(&sign).exists());
}

#[test]
fn every_step_of_the_child_that_fails_stops_the_launch() {
    let scene = Scene::new();
    let (plan, _) = plan(&scene);
    let mut tried = vec!["create-cgroup", "reserve-name", "clone", "seccomp"];
    for (name, calls) in CALLS {
        tried.push(name);
        if !plan.steps.iter().any(|step| step.name() == *name) {
            assert!(
                matches!(*name, "join-cgroup" | "map-ids" | "set-ids" | "unshare-user" | "make-symlink"),
                "{name}"
            );
            continue;
        }
        for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM] {
            let answer = ANSWERED | errno.cast_unsigned();
            let outcome = refused(|steps| break_before(steps, name, filter(calls, answer)));
            if *name == "no-new-privileges" {
                // The step that makes room for the filter is the one that is tried a second time.
                continue;
            }
            outcome.refused_at(name, errno);
            // What verifies knows of somebody else's refusal, and else has not seen a layer, whatever kept it from looking.
            assert_eq!(outcome.hint().is_some(), *name != "verify" || errno == libc::EPERM, "{outcome:?}");
        }
    }
    for step in &plan.steps {
        assert!(tried.contains(&step.name()), "`{}` is not tried", step.name());
    }
}

/// Of a plan with overlays, doors and ports, those that no other plan has.
const MORE: &[(&str, &[&str])] = &[
    ("rewrite-file", &["openat2"]),
    ("mount-changes", &["fsopen"]),
    ("mount-overlay", &["open_tree"]),
    ("make-socket", &["mknodat", "mknod", "bind"]),
    ("detach-changes", &["umount2"]),
    ("open-doors", &["socket"]),
];

#[test]
fn steps_of_overlays_and_doors_that_fail_or_are_the_last_stop_the_launch() {
    let scene = Scene::new();
    let (data, socket) = (scene.directory("data"), scene.path("socket"));
    let network = format!("allow = [\"10.9.8.7:5432\"]\nallow-unix = [\"{socket}\"]\nlisten = [8080]\n");
    let files = format!("[filesystem]\nwrite = [\"{data}\"]\nwrites = \"discard\"\n[network]\n");
    if crate::facts().landlock_abi < 4 {
        return note("before ABI 4 no cell has ports");
    }
    let plan = scene.plan(&format!("{files}{network}"), &["ids".to_owned()]);
    for (name, calls) in MORE {
        let mut refused = plan.clone();
        break_before(&mut refused.steps, name, filter(calls, REFUSED));
        let outcome = scene.run(&refused);
        outcome.refused_at(name, libc::EPERM);
        assert!(outcome.hint().is_some(), "{outcome:?}");
        let mut killed = plan.clone();
        break_before(&mut killed.steps, name, filter(calls, KILLED));
        let outcome = runner::run_times(Path::new(&scene.path("")), &killed, 2);
        let failed = outcome.failed.as_ref().unwrap_or_else(|| panic!("`{name}` was survived: {outcome:?}"));
        assert_eq!((failed.errno.0, outcome.stdout.as_str()), (libc::ECHILD, ""), "{name}: {failed}");
        assert_eq!(outcome.census[0], outcome.census[1], "{name}");
    }
    let tried: Vec<&str> = CALLS.iter().chain(MORE).map(|(name, _)| *name).collect();
    for step in &plan.steps {
        let elsewhere = ["create-cgroup", "reserve-name", "clone", "seccomp", "listen-outside"];
        assert!(tried.contains(&step.name()) || elsewhere.contains(&step.name()), "`{}`", step.name());
    }
    // The next one works.
    let outcome = scene.run(&plan);
    assert!(outcome.failed.is_none() && outcome.stdout.starts_with("ids "), "{outcome:?}");
}

#[test]
fn a_cgroup_that_cannot_be_made() {
    if needs_cgroup() {
        return;
    }
    refused(|steps| {
        let index = at(steps, "create-cgroup");
        if let Step::CreateCgroup { directories, .. } = &mut steps[index] {
            directories.push(CgroupDirectory {
                parent: "/nonexistent".into(),
                controllers: vec![],
                settings: vec![],
            });
        }
    })
    .refused_at("create-cgroup", libc::ENOENT);
    refused(|steps| {
        let index = at(steps, "create-cgroup");
        if let Step::CreateCgroup { directories, .. } = &mut steps[index] {
            directories[0].settings[0].value = "much".to_owned();
        }
    })
    .refused_at("create-cgroup", libc::EINVAL);
    // A child that is not in the cgroup that it should be in.
    refused(|steps| steps.retain(|step| !matches!(step, Step::CreateCgroup { .. })))
        .refused_at("join-cgroup", libc::ESRCH);
}

#[test]
fn a_name_that_cannot_be_reserved() {
    let path = std::env::temp_dir().join("toolcell-it-none");
    assert!(!path.exists());
    refused(|steps| {
        let index = at(steps, "clone");
        steps.insert(index, Step::ReserveName { path: "/proc/toolcell/none".into(), content: None });
    })
    .refused_at("reserve-name", libc::ENOENT);
}

#[test]
fn no_clone_and_namespaces_that_cannot_be() {
    refused(|steps| steps.retain(|step| !matches!(step, Step::Clone { .. })))
        .refused_at("clone", libc::EINVAL);
}

#[test]
fn ids_that_are_mapped_twice() {
    refused(|steps| {
        let index = at(steps, "clone");
        if let Step::Clone { namespaces } = &mut steps[index]
            && !namespaces.contains(&Namespace::User)
        {
            namespaces.insert(0, Namespace::User);
        }
        let map = Step::MapIds {
            inside: 1000,
            outside_uid: toolcell::sys::identity::effective().0,
            outside_gid: toolcell::sys::identity::effective().1,
        };
        steps.retain(|step| !matches!(step, Step::MapIds { .. } | Step::JoinCgroup { .. }));
        steps.splice(index + 1..=index, [map.clone(), map]);
    })
    .refused_at("map-ids", libc::EPERM);
}

#[test]
fn a_source_that_is_gone() {
    refused(|steps| {
        for step in steps {
            if let Step::Bind { source, access, .. } = step
                && access.write
            {
                *source = "/var/tmp/toolcell-it-nothing".into();
            }
        }
    })
    .refused_at("bind", libc::ENOENT);
}

#[test]
fn an_owner_that_the_plan_did_not_prepare() {
    if needs_root("only a toolcell started by root maps owners") {
        return;
    }
    refused(|steps| {
        for step in steps {
            if let Step::Bind { owner, access, .. } = step
                && access.write
            {
                // A map of 0 to nobody at all.
                *owner = Some((u32::MAX, u32::MAX));
            }
        }
    })
    .refused_at("bind", libc::EINVAL);
}

#[test]
fn what_is_made_twice_or_hidden_without_being_there() {
    refused(|steps| {
        let index = at(steps, "make-file");
        steps.insert(index, steps[index].clone());
    })
    .refused_at("make-file", libc::EEXIST);
    refused(|steps| {
        let index = at(steps, "mount-proc");
        steps.insert(index, Step::Hide { path: "/var/nothing".into(), emptied: false });
    })
    .refused_at("hide", libc::ENOENT);
    refused(|steps| {
        let index = at(steps, "mount-proc");
        steps.insert(index, Step::MakeSymlink { path: "/etc/passwd".into(), target: "/tmp".into() });
    })
    .refused_at("make-symlink", libc::EEXIST);
}

#[test]
fn a_rule_for_a_path_that_is_missing() {
    refused(|steps| {
        for step in steps {
            if let Step::Landlock { rules, .. } = step {
                let access = rules[0].access;
                rules.push(LandlockRule { path: "/nothing".into(), access, kind: Kind::File });
            }
        }
    })
    .refused_at("landlock", libc::ENOENT);
}

#[test]
fn a_filter_that_the_kernel_does_not_take() {
    for program in [vec![(0x06, 0, 0, 0x7fff_0000); 5000], vec![(0x05, 0, 0, 7)], vec![]] {
        refused(|steps| {
            for step in steps {
                if let Step::Seccomp { program: old, .. } = step {
                    old.clone_from(&program);
                }
            }
        })
        .refused_at("seccomp", libc::EINVAL);
    }
}

#[test]
fn a_working_directory_or_program_that_is_not_in_the_cell() {
    let outcome = refused(|steps| {
        if let Some(Step::Exec { cwd, .. }) = steps.last_mut() {
            *cwd = "/nothing".into();
        }
    });
    outcome.refused_at("exec", libc::ENOENT);
    assert_eq!(outcome.failed.as_ref().unwrap().object, "working directory /nothing");
    assert!(outcome.hint().unwrap().contains("one that is granted"));
    refused(|steps| {
        if let Some(Step::Exec { program, .. }) = steps.last_mut() {
            *program = "/etc/passwd".into();
        }
    })
    .refused_at("exec", libc::EACCES);
}

/// Steps without which a layer is not there.
fn makes(layer: Layer, step: &Step) -> bool {
    match layer {
        Layer::Landlock => matches!(step, Step::Landlock { .. }),
        Layer::Seccomp => matches!(step, Step::Seccomp { .. }),
        Layer::Capabilities => matches!(step, Step::DropCapabilities { .. }),
        Layer::Cgroup => matches!(step, Step::JoinCgroup { .. }),
        _ => false,
    }
}

#[test]
fn a_layer_that_is_missing_is_found_out() {
    for layer in [Layer::Landlock, Layer::Seccomp, Layer::Capabilities, Layer::Cgroup] {
        if layer == Layer::Cgroup && needs_cgroup() {
            continue;
        }
        let outcome = refused(|steps| steps.retain(|step| !makes(layer, step)));
        outcome.refused_at("verify", libc::EPROTO);
        assert!(outcome.failed.unwrap().object.starts_with(&format!("{}: ", layer.name())));
    }
}

#[test]
fn a_namespace_or_root_that_is_missing_is_found_out() {
    // Without a pid namespace init is not pid 1, and /proc is not the cell's.
    let outcome = refused(|steps| {
        let index = at(steps, "clone");
        if let Step::Clone { namespaces } = &mut steps[index] {
            namespaces.retain(|namespace| *namespace != Namespace::Pid);
        }
    });
    assert!(outcome.failed.is_some(), "{outcome:?}");

    // A root that is still the host's.
    let outcome = refused(|steps| {
        steps.retain(|step| !matches!(step, Step::PivotRoot | Step::Landlock { .. }));
        for step in steps {
            if let Step::Verify { layers } = step {
                *layers = vec![Layer::Root];
            }
        }
    });
    assert!(outcome.failed.is_some(), "{outcome:?}");

    // An interface that leads somewhere, or a network that is the host's.
    if is_root() {
        let outcome = refused(|steps| {
            let index = at(steps, "clone");
            if let Step::Clone { namespaces } = &mut steps[index] {
                namespaces.retain(|namespace| *namespace != Namespace::Net);
            }
            steps.retain(|step| !matches!(step, Step::LoopbackUp));
        });
        if std::fs::read_dir("/sys/class/net").unwrap().count() > 1 {
            outcome.refused_at("verify", libc::EPROTO);
        }
    }
}

/// Of two networks the receipt never names the wrong one, and no cell is in the host's whose neighbours it could reach by name.
#[test]
fn a_network_that_is_not_the_plans_is_found_out() {
    if crate::facts().landlock_abi < 6 {
        note("Landlock's ABI is below 6");
        return;
    }
    let scene = Scene::new();
    let (mut plan, _) = plan(&scene);
    plan.floor = plan.floor.with_host_network();
    if let Some(Step::Verify { layers }) = plan.steps.iter_mut().find(|step| step.name() == "verify") {
        layers.push(Layer::Network);
    }
    let told = |plan: &Plan| {
        let outcome = scene.run(plan);
        outcome.refused_at("verify", libc::EPROTO);
        outcome.failed.unwrap().object
    };
    assert_eq!(told(&plan), "network: the net namespace is not the launcher's");
    // A ruleset without the scope, as of an older kernel.
    if let Some(Step::Landlock { abi, ports, .. }) =
        plan.steps.iter_mut().find(|step| step.name() == "landlock")
    {
        (*abi, *ports) = (5, None);
    }
    assert_eq!(told(&plan), "landlock: an abstract socket can be connected to");
}

#[test]
fn a_resource_limit_never_raises() {
    let scene = Scene::new();
    let (mut plan, _) = plan(&scene);
    let index = at(&plan.steps, "set-rlimit");
    for value in [u64::MAX, 50] {
        plan.steps.insert(index, Step::SetRlimit { resource: Resource::Nofile, value });
    }
    if let Some(Step::Exec { argv, .. }) = plan.steps.last_mut() {
        argv[1] = "files,100".to_owned();
    }
    assert_eq!(scene.run(&plan).stdout, "files,100 47 EMFILE\n");
}
