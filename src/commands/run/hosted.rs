//! What cannot stand beside the host's network under `run`: looked for at the start, over all policies at once.
//!
//! Neighbours: `policy::mode` says whose network a policy has, `run` refuses what is found here. Never: changes a policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Served;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::Policy;
use crate::policy::config::access::Mode;
use crate::policy::mode::HOST;

fn mistake(told: String, hint: String) -> Failure {
    Failure::new(Ending::Configuration, told).hint(Some(hint))
}

/// Refuses arguments that would choose doors where there are none, a policy of tools that are tried which has more of the network
/// than they had, and a front that answers whoever reaches it.
pub(super) fn keep(
    served: &Served,
    fronted: bool,
    policies: &BTreeMap<String, Arc<Policy>>,
    less: &BTreeMap<String, Arc<Policy>>,
) -> Result<(), Failure> {
    let mut all = policies.values().chain(less.values());
    if fronted
        && served.access.mode == Mode::None
        && let Some(policy) = all.find(|policy| policy.network.mode.is_host())
    {
        return Err(mistake(
            format!(
                "profile `{}` has `{HOST}`, and `serve` answers without asking who it is: its tools could call all others",
                policy.name
            ),
            format!(
                "write `[auth]` with `mode = \"token\"` in the configuration, or take `{HOST}` out of the profile"
            ),
        ));
    }
    for (name, tool) in served.tools.iter().filter(|(_, tool)| !tool.grants.connect.is_empty()) {
        let profile = tool.profile.as_ref().unwrap_or(&served.profile);
        if policies.get(profile).is_some_and(|policy| policy.network.mode.is_host()) {
            return Err(mistake(
                format!(
                    "`grants` of tool `{name}` open doors, and profile `{profile}` has none: it has `{HOST}`"
                ),
                format!("take `connect` out of its `grants`, or give it a profile without `{HOST}`"),
            ));
        }
    }
    for (profile, tried) in less.iter().filter(|(_, tried)| tried.network.mode.is_host()) {
        if policies.get(profile).is_some_and(|policy| !policy.network.mode.is_host()) {
            return Err(mistake(
                format!(
                    "`quarantine.profile` is `{}`, which has `{HOST}`: tools of profile `{profile}` that are tried would have more than before",
                    tried.name
                ),
                format!("name a profile without `{HOST}`"),
            ));
        }
    }
    Ok(())
}
