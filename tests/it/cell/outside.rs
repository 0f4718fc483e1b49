//! What a receipt and a plan say of a cell is what another process sees of it: in `/proc/PID`, in the files of its cgroup, in its mounts.
//! The same for a command and for a server's call, whenever its cell was built.
//!
//! Neighbours: `launch::verify` looks from inside. On every rung: `host` says which one is expected. Never: takes what cannot be
//! looked at for what was said.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use toolcell::host::Cgroup;
use toolcell::plan::Plan;
use toolcell::plan::step::{Access, Resource, Step};
use toolcell::sys::{landlock, process};

use super::left::{children, holding, wait_for_end};
use super::probe;
use super::scene::{Scene, floor};
use crate::host;
use crate::session::world::{Client, Scratch, Setup, configure, session_in};
use crate::session::{ahead, spares};

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

/// The plan of a profile for a command.
fn explained(mut explain: Command, profile: &str, command: &[&str]) -> Plan {
    let output = explain.args(["explain", "--json", profile, "--"]).args(command).output().unwrap();
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

/// One mount of a table: where it is, what it allows, what it is of, and what that was told.
struct Mounted<'t> {
    at: &'t Path,
    options: Vec<&'t str>,
    kind: &'t str,
    filesystem: &'t str,
}

/// The mounts of `mountinfo` (proc(5)), in the order in which they were made.
fn mounted(table: &str) -> Vec<Mounted<'_>> {
    let each = |line| {
        let (mount, filesystem) = str::split_once(line, " - ").unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        let [kind, _, told] = filesystem.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let options = fields[5].split(',').collect();
        Mounted { at: Path::new(fields[4]), options, kind, filesystem: told }
    };
    table.lines().map(each).collect()
}

/// Every mount is one of the plan, or came with one, and allows what the plan says and no more; none of the plan is missing.
fn has_mounts(plan: &Plan, table: &str) {
    let none = Access::default();
    let write = Access { write: true, ..none };
    let mut wanted: Vec<(&Path, Access, bool)> =
        vec![(Path::new("/"), Access { execute: true, ..none }, false)];
    for step in &plan.steps {
        wanted.extend(match step {
            Step::Bind { target, access, devices, .. } => Some((target.as_path(), *access, *devices)),
            Step::MountOverlay { target, access, .. } => Some((target.as_path(), *access, false)),
            Step::Hide { path, .. } => Some((path.as_path(), none, false)),
            Step::MountScratch { path, execute, .. } => {
                Some((path.as_path(), Access { execute: *execute, ..write }, false))
            }
            Step::MountProc => Some((Path::new("/proc"), write, false)),
            _ => None,
        });
    }
    let found = mounted(table);
    for (path, _, _) in &wanted {
        assert!(found.iter().any(|mount| mount.at == *path), "{} is not mounted:\n{table}", path.display());
    }
    for mount in &found {
        // The last one of a place is what is seen there, and what came with a tree is bound as the tree is; with the root itself
        // nothing comes.
        let of = wanted
            .iter()
            .filter(|(path, ..)| mount.at == *path || *path != Path::new("/") && mount.at.starts_with(path));
        let of = of.max_by_key(|(path, ..)| path.components().count());
        let (_, access, devices) =
            of.unwrap_or_else(|| panic!("{} is none of the plan's:\n{table}", mount.at.display()));
        let has = |option: &str| mount.options.contains(&option);
        let seen = (has("ro"), has("noexec"), has("nodev"), has("nosuid"));
        // The host's own mount may allow less.
        let least = (!access.write, !access.execute, !devices, true);
        let held = [(seen.0, least.0), (seen.1, least.1), (seen.2, least.2), (seen.3, least.3)];
        assert!(
            held.iter().all(|(seen, least)| seen >= least),
            "{}: {:?}",
            mount.at.display(),
            mount.options
        );
    }
    let proc = found.iter().find(|mount| mount.at == Path::new("/proc")).unwrap();
    assert!(
        proc.kind == "proc"
            && proc.filesystem.contains("hidepid=invisible")
            && proc.filesystem.contains("subset=pid"),
        "{table}"
    );
}

/// Both values of a line of `/proc/PID/limits`, as numbers.
fn limit(limits: &str, name: &str) -> [u64; 2] {
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let values: Vec<&str> = line.split_whitespace().take(2).collect();
    [values[0], values[1]].map(|value| value.parse().unwrap_or(u64::MAX))
}

/// Each limit of the plan is there, soft and hard, but where this process may have less itself.
fn has_limits(plan: &Plan, limits: &str) {
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let mut looked = 0;
    for step in &plan.steps {
        let Step::SetRlimit { resource, value } = step else { continue };
        let name = match resource {
            Resource::Core => "Max core file size",
            Resource::Nofile => "Max open files",
            Resource::Fsize => "Max file size",
            Resource::Nproc => "Max processes",
            Resource::Data => "Max data size",
            Resource::Stack => "Max stack size",
            Resource::Memlock => "Max locked memory",
            Resource::Msgqueue => "Max msgqueue size",
            Resource::Sigpending => "Max pending signals",
        };
        let least = (*value).min(limit(&own, name)[1]);
        assert_eq!(limit(limits, name), [least, least], "{name}");
        looked += 1;
    }
    assert!(looked >= 5, "only {looked} limits");
}

/// All that is seen of a cell while its payload runs.
struct View {
    payload: Seen,
    maps: [String; 2],
    mounts: String,
    limits: String,
    /// Where it may be counted.
    open: Option<usize>,
    elsewhere: [bool; 7],
    has_own_cgroups: bool,
    cgroup: Vec<(Vec<String>, PathBuf)>,
    filters_here: u32,
}

fn filters(seen: &Seen) -> u32 {
    seen.words("Seccomp_filters")[0].parse().unwrap()
}

impl View {
    /// Looks at it, and whether it is what the plan says.
    fn of(payload: Seen, plan: &Plan) -> Self {
        let view = Self {
            maps: ["uid_map", "gid_map"].map(|map| payload.read(map)),
            mounts: payload.read("mountinfo"),
            limits: payload.read("limits"),
            open: fs::read_dir(format!("/proc/{}/fd", payload.pid)).map(Iterator::count).ok(),
            elsewhere: ["user", "mnt", "pid", "net", "ipc", "uts", "time"]
                .map(|kind| payload.is_elsewhere(kind)),
            has_own_cgroups: payload.is_elsewhere("cgroup"),
            cgroup: directories(&payload),
            filters_here: filters(&Seen::of(process::pid().cast_signed())),
            payload,
        };
        let limited = plan.steps.iter().any(|step| matches!(step, Step::CreateCgroup { .. }));
        assert_eq!(limited, !view.cgroup.is_empty(), "{:?}", view.cgroup);
        if limited {
            has_settings(plan, &view.cgroup);
        }
        if plan.steps.contains(&Step::PivotRoot) {
            has_mounts(plan, &view.mounts);
        }
        has_limits(plan, &view.limits);
        view
    }

    /// Whether a receipt says just this.
    fn is_told_by(&self, receipt: &Value, rung: &str) {
        let Self { payload, maps, mounts, elsewhere, cgroup, .. } = self;
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert_eq!(receipt["floor"], *rung);
        let layer = |name: &str| receipt["layers"][name].as_str();
        let told = format!("{receipt:#}\n{}\n{root}\n{elsewhere:?}", payload.status);

        assert_eq!(layer("namespaces").is_some(), elsewhere.iter().all(|is| *is), "{told}");
        assert_eq!(layer("namespaces").is_none(), elsewhere.iter().all(|is| !*is), "{told}");
        let is_private =
            root.contains(" - tmpfs ") && root.split(' ').nth(5).unwrap().split(',').any(|word| word == "ro");
        assert_eq!(layer("root").is_some(), is_private, "{told}");
        assert_eq!(layer("cgroup").is_some(), !cgroup.is_empty(), "{told}");
        assert_eq!(layer("root").is_some() && !cgroup.is_empty(), self.has_own_cgroups, "{told}");
        assert_eq!((layer("seccomp"), payload.words("Seccomp")), (Some("filter"), vec!["2"]), "{told}");
        assert_eq!(filters(payload), self.filters_here + 2, "{told}");
        let empty = layer("capabilities").unwrap();
        assert_eq!(payload.words("NoNewPrivs"), ["1"], "{told}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
            let kept = set == "CapBnd" && empty.contains("but the bounding one");
            assert_eq!(u64::from_str_radix(payload.words(set)[0], 16).unwrap() == 0, !kept, "{set}: {told}");
        }
        let identity = layer("identity").unwrap();
        let ["uid", uid, "gid", gid, "groups", groups, ..] = identity.split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("{told}")
        };
        let ids = [uid, gid].map(|id| id.parse::<u64>().unwrap());
        for ((name, map), id) in ["Uid", "Gid"].iter().zip(maps).zip(ids) {
            let here = outside(map, id).to_string();
            assert!(payload.words(name).iter().all(|word| *word == here), "{name}: {here}: {told}");
            // In a namespace of its own there is nobody else.
            let alone = map.split_whitespace().eq([id.to_string().as_str(), here.as_str(), "1"]);
            assert!(alone || layer("namespaces").is_none(), "{map}: {told}");
        }
        let kept = payload.words("Groups").len();
        assert_eq!(groups, if kept == 0 { "none".to_owned() } else { kept.to_string() }, "{told}");
        assert!(layer("landlock").unwrap().starts_with(&format!("abi {};", landlock::abi())), "{told}");
        assert!(
            layer("descriptors") == Some("stdin, stdout, stderr") && self.open.is_none_or(|count| count == 3),
            "{:?}",
            self.open
        );
    }
}

#[test]
fn a_receipt_is_what_is_seen_from_outside() {
    let Some(rung) = rung() else { return };
    let scene = Scene::new();
    let (report, mark) = (scene.path("report.json"), scene.path("mark"));
    let profile = scene.profile(&format!("floor = \"{rung}\"\n"));
    let program = probe::program();
    let plan = explained(scene.command("profile"), &profile, &[program.to_str().unwrap(), "ids"]);
    let mut command = scene.command("exec");
    command.args(["--floor", &rung, "--report", &report, "--"]).arg(program).args(["stay", &mark]);
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
    let view = View::of(Seen::of(payload.unwrap()), &plan);
    for cell in &all {
        assert_eq!(directories(cell), view.cgroup);
    }

    // The report is written when the cell has ended.
    process::kill(view.payload.pid).unwrap();
    child.wait().unwrap();
    wait_for_end(&all.iter().map(|seen| seen.pid).collect::<Vec<_>>());
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    view.is_told_by(&report["receipt"], &rung);
}

/// The server of the one call that is under way, once it has got the call.
async fn at_work(client: &mut Client) -> Seen {
    assert_eq!(client.read().await["method"], "notifications/progress");
    loop {
        let servers =
            children(ahead::launcher(client)).into_iter().flat_map(|init| children(init.cast_unsigned()));
        let runs = |seen: &Seen| !seen.status.contains("State:\tT");
        let running: Vec<Seen> = servers.map(Seen::of).filter(runs).collect();
        if let Ok([server]) = <[Seen; 1]>::try_from(running) {
            return server;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_call_s_receipt_is_what_is_seen_from_outside_whenever_its_cell_was_built() {
    let Some(rung) = rung() else { return };
    // Without namespaces no cell waits for its call.
    let later = if rung == "landlock" { vec![] } else { vec![("ahead", "0"), ("spare", "1")] };
    for (second, number) in later.into_iter().chain([("on-demand", "0")]) {
        let scratch = Scratch::outside_of_scratch();
        let options = ["--spares", number, "--floor", &rung].map(str::to_owned).to_vec();
        let setup = Setup { options, time: "60s", ..Setup::default() };
        configure(&setup, &scratch);
        let profile = scratch.0.join("plan.toml");
        let rules = fs::read_to_string(scratch.0.join("test.toml")).unwrap();
        fs::write(&profile, format!("floor = \"{rung}\"\n{rules}")).unwrap();
        let server = crate::project().join("tests/it/session/server.py");
        let command = ["/usr/bin/python3", "-S", "-E", server.to_str().unwrap()];
        let mut explain = Command::new(crate::binary());
        explain.arg("profile").current_dir(&scratch.0);
        let plan = explained(explain, profile.to_str().unwrap(), &command);
        let mut views = Vec::new();
        let seen = &mut views;
        let book = session_in(&scratch, &setup, |mut client| async move {
            let calls = if second == "on-demand" { 1 } else { 2 };
            for id in 1..=calls {
                client.start_call(id, "under-way", json!({})).await;
                seen.push(View::of(at_work(&mut client).await, &plan));
                let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
                client.send(&cancelled.to_string()).await;
                if id < calls && second == "ahead" {
                    ahead::ready(&client, 1).await;
                } else if id < calls {
                    spares::stopped(&client).await;
                }
            }
            client
        });
        let calls: Vec<&Value> =
            book.finished.iter().filter(|record| record["call"]["method"] == "tools/call").collect();
        assert_eq!(calls.len(), views.len());
        for (view, record) in views.iter().zip(&calls) {
            view.is_told_by(&record["receipt"], &rung);
        }
        assert_eq!(calls.last().unwrap()["receipt"]["cell"], second);
    }
}
