//! The step that makes a cell's cgroup, with the limits in it.
//!
//! Neighbours: `plan::build` puts it in its place. Never: looks which hierarchies there are.

use super::step::{CgroupDirectory, CgroupSetting, Step};
use crate::host::Cgroup;
use crate::policy::Limits;

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
