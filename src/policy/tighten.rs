//! A policy with less of everything, for a tool that is tried after it was refused too much.
//!
//! Neighbours: `commands::run` makes it for each profile in use, `guard` says for which call it counts. Never: gives a tool
//! anything that it did not have.

use std::time::Duration;

use super::Policy;
use super::limits::bounds;
use crate::outcome::Limit;

/// Half of an amount, and no less than what a limit can be.
fn half(limit: Limit, amount: u64) -> u64 {
    (amount / 2).max(*bounds(limit).start()).min(amount)
}

fn half_count(limit: Limit, amount: u32) -> u32 {
    u32::try_from(half(limit, amount.into())).unwrap_or(amount)
}

impl Policy {
    /// The same, but what could be written can only be read, and the limits are half: on memory, CPU, tasks, time, output,
    /// the size of a file and of the scratch directory, connections at once. How many files are open at once is left as it is, because
    /// programs need what they need to start.
    #[must_use]
    pub fn tightened(&self) -> Self {
        let mut policy = self.clone();
        policy.name = format!("{} (tightened)", self.name);
        let filesystem = &mut policy.filesystem;
        filesystem.read.append(&mut filesystem.write);
        filesystem.scratch = half(Limit::Scratch, filesystem.scratch);
        filesystem.scratch_execute = false;
        let limits = &mut policy.limits;
        let micros = u64::try_from(limits.time.as_micros()).unwrap_or(u64::MAX);
        limits.time = Duration::from_micros(half(Limit::Time, micros));
        limits.memory = half(Limit::Memory, limits.memory);
        limits.cpu = half_count(Limit::Cpu, limits.cpu);
        limits.tasks = half_count(Limit::Tasks, limits.tasks);
        limits.output = half(Limit::Output, limits.output);
        limits.file_size = half(Limit::FileSize, limits.file_size);
        let network = &mut policy.network;
        network.connections = (network.connections / 2).max(1);
        let bounded = network.bounded.iter_mut().map(|bounded| &mut bounded.limits);
        let sockets = network.unix.iter_mut().map(|socket| &mut socket.limits);
        let ports = network.listen.iter_mut().map(|listen| &mut listen.limits);
        for count in bounded.chain(sockets).chain(ports).filter_map(|limits| limits.connections.as_mut()) {
            *count = (*count / 2).max(1);
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::door::{Bounded, DoorLimits};
    use super::super::network::Network;
    use super::super::{Audit, Environment, Filesystem, Floor, Limits, Observe, PathRule, Syscalls};
    use super::*;

    fn minimal() -> Policy {
        Policy {
            name: "p".to_owned(),
            description: String::new(),
            filesystem: Filesystem::default(),
            limits: Limits {
                memory: 1 << 29,
                cpu: 10,
                tasks: 3,
                time: Duration::from_secs(3),
                output: 100,
                open_files: 64,
                file_size: 1 << 20,
            },
            syscalls: Syscalls::default(),
            environment: Environment::default(),
            audit: Audit::default(),
            floor: Floor::Full,
            observe: Observe::Calls,
            network: Network::default(),
        }
    }

    #[test]
    fn nothing_can_be_written_and_every_limit_is_half_or_as_small_as_it_can_be() {
        let rule = |path: &str| PathRule {
            path: PathBuf::from(path),
            why: String::new(),
            origin: String::new(),
            optional: false,
        };
        let mut policy = minimal();
        policy.filesystem.read = vec![rule("/r")];
        policy.filesystem.write = vec![rule("/w")];
        policy.filesystem.scratch = 1001;
        let limits = DoorLimits { connections: Some(3), up: Some(9), ..DoorLimits::default() };
        policy.network.bound(&Bounded { to: "a.example:1".parse().unwrap(), limits });
        let less = policy.tightened();
        assert_eq!(less.filesystem.read, [rule("/r"), rule("/w")]);
        assert!(less.filesystem.write.is_empty());
        assert_eq!((less.limits.memory, less.limits.tasks, less.limits.cpu), (1 << 28, 2, 10));
        assert_eq!((less.limits.time, less.filesystem.scratch), (Duration::from_millis(1500), 500));
        assert_eq!(less.network.connections, 32);
        let limits = &less.network.bounded[0].limits;
        assert_eq!((limits.connections, limits.up), (Some(1), Some(9)));
        assert_eq!(less.limits.open_files, policy.limits.open_files);
        assert_eq!(less.name, format!("{} (tightened)", policy.name));
    }
}
