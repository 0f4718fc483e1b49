//! What a receipt says of a cell is what another process sees of it: in `/proc/PID`, in the files of its cgroup, in its mounts.
//!
//! Neighbours: `launch::verify` looks from inside. On every rung: `host` says which one is expected. Never: takes what cannot be
//! looked at for what was said.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use toolcell::host::Cgroup;
use toolcell::plan::Plan;
use toolcell::plan::step::Step;
use toolcell::sys::{landlock, process};

use super::left::{children, holding, wait_for_end};
use super::probe;
use super::scene::{Scene, floor};
use crate::host;

/// One process of a cell, from outside.
struct Seen {
    pid: i32,
    status: String,
}

impl Seen {
    fn of(pid: i32) -> Self {
        Self { pid, status: fs::read_to_string(format!("/proc/{pid}/status")).unwrap() }
    }

    /// A line of `status`, its words.
    fn words(&self, name: &str) -> Vec<&str> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.status)).split_whitespace().collect()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap()
    }

    /// Is its namespace of this kind another than this process's? What may not be read is not this process's own.
    fn is_elsewhere(&self, kind: &str) -> bool {
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).ok();
        link(&self.pid.to_string()) != link("self")
    }
}

/// What an id of a user namespace is outside, by its map (`user_namespaces(7)`).
fn outside(map: &str, inside: u64) -> u64 {
    let found = map.lines().find_map(|line| {
        let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [first, outside, count] = numbers[..] else { panic!("{line}") };
        (first..first + count).contains(&inside).then(|| outside + (inside - first))
    });
    found.unwrap_or_else(|| panic!("{inside} is nobody in {map}"))
}

/// The plan for the probe on this rung.
fn plan(scene: &Scene, rung: &str) -> Plan {
    let profile = scene.profile(&format!("floor = \"{rung}\"\n"));
    let mut command = scene.command("profile");
    let output = command
        .args(["explain", "--json", &profile, "--"])
        .arg(probe::program())
        .arg("ids")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rung that is expected here, or else reached; none where no cell is made at all.
fn rung() -> Option<String> {
    let rung = match host::expected() {
        Some(expected) => expected.split(':').next().unwrap().to_owned(),
        None => floor()[1].to_owned(),
    };
    (rung != "none").then_some(rung)
}

/// The directories of a cell's cgroup, each with the controllers that count there; none if it is in this process's.
fn directories(cell: &Seen) -> Vec<(Vec<String>, PathBuf)> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let lists = cell.read("cgroup");
    let moved = lists.lines().filter(|line| !own.lines().any(|mine| mine == *line));
    let mut found = Vec::new();
    for line in moved {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let name = Path::new(path).file_name().unwrap();
        match &crate::facts().cgroup {
            Ok(Cgroup::V1(hierarchies)) => {
                for (controller, parent) in hierarchies {
                    if controllers.split(',').any(|listed| listed == controller) {
                        found.push((vec![controller.clone()], parent.join(name)));
                    }
                }
            }
            Ok(Cgroup::V2(_)) => {
                let every = ["memory", "pids", "cpu"].map(str::to_owned).to_vec();
                found.push((every, Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))));
            }
            Err(_) => {}
        }
    }
    found
}

/// Each setting of the plan is in the file that is there; the kernel counts memory in whole pages.
fn has_settings(plan: &Plan, found: &[(Vec<String>, PathBuf)]) {
    let mut looked = 0;
    for step in &plan.steps {
        let Step::CreateCgroup { directories, .. } = step else { continue };
        for wanted in directories {
            let (_, place) = found
                .iter()
                .find(|(controllers, _)| wanted.controllers.iter().all(|name| controllers.contains(name)))
                .unwrap();
            for setting in &wanted.settings {
                let Ok(text) = fs::read_to_string(place.join(&setting.file)) else {
                    assert!(setting.optional, "{} lacks {}", place.display(), setting.file);
                    continue;
                };
                let number = |text: &str| text.trim().parse::<u64>().ok().map(|bytes| bytes / 4096 * 4096);
                let same = text.trim() == setting.value
                    || number(&text).is_some() && number(&text) == number(&setting.value);
                assert!(same, "{}: `{}`, not `{}`", setting.file, text.trim(), setting.value);
                looked += 1;
            }
        }
    }
    assert!(looked >= 3, "only {looked} settings");
}

#[test]
fn a_receipt_is_what_is_seen_from_outside() {
    let Some(rung) = rung() else { return };
    let scene = Scene::new();
    let (report, mark) = (scene.path("report.json"), scene.path("mark"));
    let around = ["--floor", &rung];
    let mut command = scene.command("exec");
    command.args(around).args(["--report", &report, "--"]).arg(probe::program()).args(["stay", &mark]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let init = children(child.id())[0];
    let own = child.id().cast_signed();
    let all: Vec<Seen> =
        holding(&mark).into_iter().filter(|pid| ![init, own].contains(pid)).map(Seen::of).collect();
    assert_eq!(all.len(), 3, "the payload, its child and its daemon");
    let payload =
        children(init.cast_unsigned()).into_iter().find(|pid| !children(pid.cast_unsigned()).is_empty());
    let payload = Seen::of(payload.unwrap());
    let cgroup = directories(&payload);
    if !cgroup.is_empty() {
        has_settings(&plan(&scene, &rung), &cgroup);
    }
    for cell in &all {
        assert_eq!(directories(cell), cgroup);
    }
    let table = payload.read("mountinfo");
    let root = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap().to_owned();
    let maps = ["uid_map", "gid_map"].map(|map| payload.read(map));
    let open = fs::read_dir(format!("/proc/{}/fd", payload.pid)).map(Iterator::count).ok();
    let elsewhere =
        ["user", "mnt", "pid", "net", "ipc", "uts", "time"].map(|kind| payload.is_elsewhere(kind));
    let has_own_cgroups = payload.is_elsewhere("cgroup");
    let filters = |seen: &Seen| -> u32 { seen.words("Seccomp_filters")[0].parse().unwrap() };
    let here = Seen::of(process::pid().cast_signed());

    // The report is written when the cell has ended.
    process::kill(payload.pid).unwrap();
    child.wait().unwrap();
    wait_for_end(&all.iter().map(|seen| seen.pid).collect::<Vec<_>>());
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let receipt = &report["receipt"];
    assert_eq!(receipt["floor"], *rung);
    let layer = |name: &str| receipt["layers"][name].as_str();
    let told = format!("{receipt:#}\n{}\n{root}\n{elsewhere:?}", payload.status);

    assert_eq!(layer("namespaces").is_some(), elsewhere.iter().all(|is| *is), "{told}");
    assert_eq!(layer("namespaces").is_none(), elsewhere.iter().all(|is| !*is), "{told}");
    let is_private =
        root.contains(" - tmpfs ") && root.split(' ').nth(5).unwrap().split(',').any(|word| word == "ro");
    assert_eq!(layer("root").is_some(), is_private, "{told}");
    assert_eq!(layer("cgroup").is_some(), !cgroup.is_empty(), "{told}");
    assert_eq!(layer("root").is_some() && !cgroup.is_empty(), has_own_cgroups, "{told}");
    assert_eq!((layer("seccomp"), payload.words("Seccomp")), (Some("filter"), vec!["2"]), "{told}");
    assert_eq!(filters(&payload), filters(&here) + 2, "{told}");
    let empty = layer("capabilities").unwrap();
    assert_eq!(payload.words("NoNewPrivs"), ["1"], "{told}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        let kept = set == "CapBnd" && empty.contains("but the bounding one");
        assert_eq!(u64::from_str_radix(payload.words(set)[0], 16).unwrap() == 0, !kept, "{set}: {told}");
    }
    let identity = layer("identity").unwrap();
    let ["uid", uid, "gid", gid, "groups", groups, ..] = identity.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    let ids = [uid, gid].map(|id| id.parse::<u64>().unwrap());
    for ((name, map), id) in ["Uid", "Gid"].iter().zip(&maps).zip(ids) {
        let here = outside(map, id).to_string();
        assert!(payload.words(name).iter().all(|word| *word == here), "{name}: {here}: {told}");
    }
    let kept = payload.words("Groups").len();
    assert_eq!(groups, if kept == 0 { "none".to_owned() } else { kept.to_string() }, "{told}");
    assert!(layer("landlock").unwrap().starts_with(&format!("abi {};", landlock::abi())), "{told}");
    assert!(
        layer("descriptors") == Some("stdin, stdout, stderr") && open.is_none_or(|count| count == 3),
        "{open:?}"
    );
}
