//! The steps that set limits: the cell's cgroup, and each process's own.
//!
//! Neighbours: `plan::build` puts it in its place. Never: looks which hierarchies there are.

use super::step::{CgroupDirectory, CgroupSetting, Resource, Step};
use crate::host::Cgroup;
use crate::policy::{Floor, Limits};

/// The stack of a process, where nothing else bounds it: what a program has of most hosts without asking, and takes for each thread.
const STACK: u64 = 8 << 20;

/// The limits of each process.
pub(super) fn rlimits(limits: &Limits, floor: Floor, steps: &mut Vec<Step>) {
    let mut add = |resource, value| steps.push(Step::SetRlimit { resource, value });
    // Not 0: a program to which dumps are piped is asked even then (core(5)).
    add(Resource::Core, 1);
    add(Resource::Nofile, limits.open_files.into());
    add(Resource::Fsize, limits.file_size);
    add(Resource::Memlock, 64 * 1024);
    add(Resource::Msgqueue, 0);
    if floor != Floor::Full {
        // Without a cgroup: each process for itself, and tasks by the cell's own user namespace, if it has one.
        add(Resource::Data, limits.memory);
        // What the stack takes is not in that, and a program may ask for all that the hard limit has.
        add(Resource::Stack, STACK);
    }
    if floor == Floor::NoCgroup {
        add(Resource::Nproc, limits.tasks.into());
    }
}

/// The step that makes the cgroup, if it is of this version: v2 needs it for the clone, v1 for the joining only.
pub(super) fn create_cgroup(cgroup: Option<&Cgroup>, limits: &Limits, before_clone: bool) -> Option<Step> {
    let (directories, unified) = cgroup_directories(cgroup?, limits);
    (unified == before_clone).then_some(Step::CreateCgroup { directories, unified })
}

fn cgroup_directories(cgroup: &Cgroup, limits: &Limits) -> (Vec<CgroupDirectory>, bool) {
    const PERIOD_US: u64 = 100_000;
    let quota = (u64::from(limits.cpu) * PERIOD_US / 1000).max(1000);
    let setting =
        |file: &str, value: String, optional| CgroupSetting { file: file.to_owned(), value, optional };
    let memory = limits.memory.to_string();
    match cgroup {
        Cgroup::V2(parent) => {
            let settings = vec![
                // A kernel without swap has no such file; the group dies as one.
                setting("memory.swap.max", "0".to_owned(), true),
                setting("memory.oom.group", "1".to_owned(), false),
                setting("memory.max", memory, false),
                setting("pids.max", limits.tasks.to_string(), false),
                setting("cpu.max", format!("{quota} {PERIOD_US}"), false),
            ];
            let controllers = ["memory", "pids", "cpu"].map(str::to_owned).to_vec();
            (vec![CgroupDirectory { parent: parent.clone(), controllers, settings }], true)
        }
        Cgroup::V1(hierarchies) => {
            let mut directories: Vec<CgroupDirectory> = Vec::new();
            for (controller, parent) in hierarchies {
                let settings = match controller.as_str() {
                    "memory" => vec![
                        setting("memory.limit_in_bytes", memory.clone(), false),
                        // Without swap accounting there is no such file.
                        setting("memory.memsw.limit_in_bytes", memory.clone(), true),
                    ],
                    "pids" => vec![setting("pids.max", limits.tasks.to_string(), false)],
                    _ => vec![
                        setting("cpu.cfs_period_us", PERIOD_US.to_string(), false),
                        setting("cpu.cfs_quota_us", quota.to_string(), false),
                    ],
                };
                match directories.iter_mut().find(|d| d.parent == *parent) {
                    Some(shared) => {
                        shared.controllers.push(controller.clone());
                        shared.settings.extend(settings);
                    }
                    None => directories.push(CgroupDirectory {
                        parent: parent.clone(),
                        controllers: vec![controller.clone()],
                        settings,
                    }),
                }
            }
            (directories, false)
        }
    }
}
