//! The rung that a host gives a policy, or why that is below its floor.
//!
//! Neighbours: `plan::build` makes the plan of it. Never: takes what the policy accepts of one part for what it accepts of another.

use super::Refusal;
use crate::host::Facts;
use crate::policy::{Floor, Policy};

/// The first ABI of Landlock that keeps signals and abstract sockets inside: an older one leaves nothing between the payload and the user's
/// processes without a pid namespace, and one wall less between it and their sockets without one of the network.
pub(super) const SCOPED: u32 = 6;

/// The rung that the host gives, if the policy accepts it.
pub(super) fn reached(facts: &Facts, policy: &Policy) -> Result<Floor, Refusal> {
    let wanted = policy.floor;
    let host = policy.network.mode.is_host();
    if host && wanted.has_own_network() {
        return Err(Refusal::HostNetwork { wanted });
    }
    let rung = |rung: Floor| if host { rung.with_host_network() } else { rung };
    let found = match &facts.cgroup {
        _ if wanted.is_bare() && facts.no_namespaces.is_some() => Floor::Landlock,
        Ok(_) => Floor::Full,
        Err(_) if wanted.accepts(Floor::NoCgroup) => Floor::NoCgroup,
        Err(why) => {
            return Err(Refusal::Floor { wanted, reached: rung(Floor::NoCgroup), why: why.clone() });
        }
    };
    if host && facts.landlock_abi != 0 && facts.landlock_abi < SCOPED {
        return Err(Refusal::OldScope { abi: facts.landlock_abi });
    }
    Ok(rung(found))
}
