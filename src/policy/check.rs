//! What is allowed but probably not meant: the warnings of `profile check`.
//!
//! Neighbours: `commands` print them. Never: refuses anything.

use std::path::Path;

use super::address::special;
use super::limits::print;
use super::mode::HOST;
use super::network::{Host, Network, Sni};
use super::{PathRule, Policy};
use crate::outcome::Limit;

/// Warnings about a policy, each one lowercase fragment.
#[must_use]
pub fn warnings(policy: &Policy) -> Vec<String> {
    let mut warnings = Vec::new();
    let filesystem = &policy.filesystem;
    for deny in &filesystem.deny {
        if !policy.grants().any(|grant| deny.path.starts_with(&grant.path)) {
            warnings.push(format!("`deny` of `{}` hides nothing: no grant shows it", deny.path.display()));
        }
    }
    for write in &filesystem.write {
        for execute in filesystem.execute.iter().filter(|execute| overlap(write, execute)) {
            let (write, execute) = (write.path.display(), execute.path.display());
            warnings.push(format!(
                "a tool can execute what it wrote: `write` of `{write}`, `execute` of `{execute}`"
            ));
        }
    }
    for grant in policy.grants() {
        if ["/run", "/var/run"].iter().any(|run| grant.path.starts_with(run)) {
            let path = grant.path.display();
            warnings.push(format!(
                "`{path}` may show sockets of the host, and a tool can connect to what it sees"
            ));
        }
    }
    for name in policy.syscalls.allow.iter().filter(|name| policy.syscalls.deny.contains(name)) {
        warnings.push(format!("system call `{name}` is allowed and denied: it stays denied"));
    }
    if policy.floor.is_bare() && !filesystem.deny.is_empty() {
        warnings.push(
            "a host that reaches only `landlock` cannot enforce `deny`, and will refuse this profile"
                .to_owned(),
        );
    }
    if filesystem.scratch > policy.limits.memory {
        let (scratch, memory) = (filesystem.scratch, policy.limits.memory);
        warnings.push(format!(
            "scratch of {} counts as memory, of which there are {}",
            print(Limit::Scratch, scratch),
            print(Limit::Memory, memory)
        ));
    }
    if filesystem.scratch_execute && filesystem.scratch == 0 {
        warnings.push("`execute` names the scratch directory, but `scratch` is 0".to_owned());
    }
    warnings.extend(network(&policy.network));
    if policy.network.mode.is_host() {
        warnings.push(format!(
            "`{HOST}`: a tool reaches all that this user does, services on the loopback and a cloud's metadata too, listens for \
             other hosts, and nothing of it is recorded"
        ));
        if policy.floor.has_own_network() {
            warnings.push(format!(
                "the floor `{}` does not accept that, and every call is refused: write `floor = \"{}\"` at the top",
                policy.floor.name(),
                policy.floor.with_host_network().name()
            ));
        }
        if policy.syscalls.allow.iter().any(|name| name == "socket") {
            warnings.push(
                "`socket` in `[syscalls]` opens what else the host's network has: netlink, vsock, and whatever its kernel knows"
                    .to_owned(),
            );
        }
    } else if !policy.floor.has_own_network() {
        warnings.push(format!(
            "the floor `{}` is for `{HOST}`, which this profile does not have",
            policy.floor.name()
        ));
    }
    let own = ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"];
    let shown = |grant: &&PathRule| own.iter().any(|own| Path::new(own).starts_with(&grant.path));
    for grant in policy.grants().filter(|_| policy.network.is_open()).filter(shown) {
        warnings.push(format!(
            "`{}` shows the host's own files in place of those by which names of doors are found",
            grant.path.display()
        ));
    }
    if policy.floor.is_bare() && policy.network.is_open() {
        warnings.push(
            "a host that reaches only `landlock` has no doors, and will refuse this profile".to_owned(),
        );
    }
    warnings
}

fn network(network: &Network) -> Vec<String> {
    let mut warnings = Vec::new();
    for allowed in &network.allow {
        let destination = &allowed.destination;
        if !network.doors().any(|door| door.destination == *destination) {
            warnings.push(format!("`{destination}` is allowed and denied: it stays denied"));
        }
        match &destination.host {
            Host::Below(above) if !above.contains('.') => {
                warnings.push(format!("`{destination}` lets a tool reach whoever has a name below `{above}`"))
            }
            Host::Address(address) => {
                if let Some(what) = special(*address).filter(|what| *what != "private" && *what != "loopback")
                {
                    warnings.push(format!("`{destination}` is an address that is {what}"));
                }
            }
            Host::Below(_) | Host::Name(_) => {}
        }
    }
    for (to, connections) in network.bounded.iter().filter_map(|one| Some((&one.to, one.limits.connections?)))
    {
        if connections > network.connections {
            let all = network.connections;
            warnings.push(format!(
                "`{to}` may have {connections} connections at once, and all doors together {all}"
            ));
        }
    }
    for name in network.hosts.keys().filter(|name| !network.knows_name(name)) {
        warnings.push(format!("`hosts` has addresses of `{name}`, which `allow` does not name"));
    }
    if network.sni == Sni::Any && network.is_open() {
        warnings.push("`sni = \"any\"` lets a tool ask the server behind a door for another name".to_owned());
    }
    if network.sni == Sni::Outer && network.is_open() {
        warnings.push(
            "`sni = \"outer\"` lets a tool ask the server behind a door for another name, which nobody else can read"
                .to_owned(),
        );
    }
    warnings
}

fn overlap(a: &PathRule, b: &PathRule) -> bool {
    a.path.starts_with(&b.path) || b.path.starts_with(&a.path)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Floor;
    use super::super::door::{Bounded, DoorLimits};
    use super::super::network::Allowed;
    use super::*;

    #[test]
    fn what_is_probably_not_meant_of_doors_is_told() {
        let mut policy = Policy::nothing("p");
        policy.floor = Floor::Landlock;
        policy.filesystem.read = vec![PathRule {
            path: PathBuf::from("/etc"),
            why: String::new(),
            origin: String::new(),
            optional: false,
        }];
        assert_eq!(warnings(&policy), Vec::<String>::new());
        let allow = ["*.com:443", "169.254.169.254:80", "10.0.0.1:80", "b.example:443"];
        policy.network.allow =
            allow.map(|text| Allowed { destination: text.parse().unwrap(), origin: String::new() }).into();
        policy.network.deny = vec!["b.example:*".parse().unwrap()];
        policy.network.hosts = [("c.example".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into();
        policy.network.sni = Sni::Any;
        for connections in [65, 64] {
            let limits = DoorLimits { connections: Some(connections), ..DoorLimits::default() };
            let to = format!("10.0.0.1:{connections}").parse().unwrap();
            policy.network.bound(&Bounded { to, limits });
        }
        assert_eq!(
            warnings(&policy),
            [
                "`*.com:443` lets a tool reach whoever has a name below `com`",
                "`169.254.169.254:80` is an address that is cloud metadata",
                "`b.example:443` is allowed and denied: it stays denied",
                "`10.0.0.1:65` may have 65 connections at once, and all doors together 64",
                "`hosts` has addresses of `c.example`, which `allow` does not name",
                "`sni = \"any\"` lets a tool ask the server behind a door for another name",
                "`/etc` shows the host's own files in place of those by which names of doors are found",
                "a host that reaches only `landlock` has no doors, and will refuse this profile",
            ]
        );
        policy.network =
            Network { allow: policy.network.allow[3..].into(), sni: Sni::Outer, ..Network::default() };
        assert_eq!(
            warnings(&policy)[0],
            "`sni = \"outer\"` lets a tool ask the server behind a door for another name, which nobody else can read"
        );
    }
}
