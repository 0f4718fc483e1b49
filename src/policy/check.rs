//! What is allowed but probably not meant: the warnings of `profile check`.
//!
//! Neighbours: `commands` print them. Never: refuses anything.

use std::path::Path;

use super::address::special;
use super::limits::print;
use super::mode::HOST;
use super::network::{Host, Network, Sni};
use super::units::print_size;
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
    warnings.extend(in_vain(network));
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

/// Limits of one door that are above those of all together.
fn in_vain(network: &Network) -> Vec<String> {
    let (doors, ports) = (("all doors", network.connections), ("all ports", network.connections_inside()));
    let out = network.bounded.iter().map(|one| (one.to.to_string(), &one.limits, doors));
    let sockets = network.unix.iter().map(|one| (one.path.clone(), &one.limits, doors));
    let into = network.listen.iter().map(|one| (one.to_string(), &one.limits, ports));
    let mut warnings = Vec::new();
    for (door, own, (together, most)) in out.chain(sockets).chain(into) {
        if let Some(connections) = own.connections.filter(|connections| *connections > most) {
            warnings.push(format!(
                "`{door}` may have {connections} connections at once, and {together} together {most}"
            ));
        }
        for (may, own, all) in [("send", own.up, network.up), ("be sent", own.down, network.down)] {
            if let Some((own, all)) = own.zip(all).filter(|(own, all)| own > all) {
                let (own, all) = (print_size(own), print_size(all));
                warnings
                    .push(format!("through `{door}` a call may {may} {own}, and through all doors {all}"));
            }
        }
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
    use super::super::listen::Listen;
    use super::super::network::Allowed;
    use super::super::unix_socket::UnixSocket;
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

    #[test]
    fn a_limit_of_one_door_that_is_above_that_of_all_is_told_whatever_the_door_is() {
        let limits = |connections| DoorLimits {
            connections: Some(connections),
            up: Some(2),
            down: Some(3),
            ..DoorLimits::default()
        };
        let network = |connections, inside| {
            let mut network = Network { connections: 64, up: Some(2), down: Some(3), ..Network::default() };
            network.bound(&Bounded { to: "a.example:443".parse().unwrap(), limits: limits(connections) });
            let socket = UnixSocket::new("/run/a", "", "").unwrap();
            network.unix.push(UnixSocket { limits: limits(connections), ..socket });
            for text in ["8080", "8080=/run/x"] {
                network.listen_at(&Listen { limits: limits(inside), ..text.parse().unwrap() });
            }
            network
        };
        assert_eq!(in_vain(&network(64, 32)), Vec::<String>::new());
        let lower = Network { up: Some(1), down: Some(2), ..network(65, 33) };
        let bytes = |door: &str| {
            [
                format!("through `{door}` a call may send 2B, and through all doors 1B"),
                format!("through `{door}` a call may be sent 3B, and through all doors 2B"),
            ]
        };
        let [a, socket, any, at] = ["a.example:443", "/run/a", "8080", "8080=/run/x"].map(|door| {
            let (own, together, most) =
                if door.starts_with('8') { (33, "ports", 32) } else { (65, "doors", 64) };
            let told =
                format!("`{door}` may have {own} connections at once, and all {together} together {most}");
            [vec![told], bytes(door).to_vec()].concat()
        });
        assert_eq!(in_vain(&lower), [a, socket, any, at].concat());
        let fewer = Network { connections: 8, ..network(8, 9) };
        assert!(
            in_vain(&fewer)[0].contains("`8080` may have 9 connections at once, and all ports together 8")
        );
    }
}
