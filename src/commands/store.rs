//! `toolcell store`: what was fetched, whether it is as it was, and what may go.
//!
//! Neighbours: `store` has it, `install` fills it. Never: fetches.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::install::{lock, store as of_user, store_failed};
use crate::audit::{rfc3339, to_line};
use crate::cli::{ColorChoice, StoreArgs, StoreCommand};
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::units::parse_duration;
use crate::store::{Collected, Listed, Store, Verified};
use crate::text::escape;

/// Runs one of the subcommands.
pub(super) fn run(args: &StoreArgs, color: ColorChoice) -> Result<Ending, Failure> {
    let store = of_user()?;
    let (text, value, ending) = match &args.command {
        StoreCommand::List => list(&store)?,
        StoreCommand::Verify => verify(&store)?,
        StoreCommand::Collect { unused } => {
            let unused = unused.as_ref().map(|typed| {
                parse_duration(&typed.text).map_err(|error| {
                    let told =
                        format!("cannot use the value `{}` of `{}`: {error}", typed.text, typed.option);
                    Failure::new(Ending::Usage, told).hint(Some("write a time, e.g. `30d`".to_owned()))
                })
            });
            let unused = unused.transpose()?;
            let Collected { entries, bytes, in_use } =
                lock(&store, color)?.collect(unused).map_err(store_failed)?;
            let stay = if in_use.is_empty() {
                String::new()
            } else {
                format!("; {} stay: servers run from them", in_use.len())
            };
            let text = format!("{} removed, {} KiB{stay}\n", entries.len(), bytes >> 10);
            (text, json!({ "removed": entries, "bytes": bytes, "in_use": in_use }), Ending::Success)
        }
    };
    let text = if text.is_empty() { "the store is empty\n".to_owned() } else { text };
    let shown =
        super::print(&if args.json { to_line(&value).unwrap_or_default() } else { text.into_bytes() })?;
    Ok(if ending == Ending::Success { shown } else { ending })
}

fn list(store: &Store) -> Result<(String, Value, Ending), Failure> {
    let (mut text, mut all) = (String::new(), Vec::new());
    for Listed { stored, packages, used } in store.list().map_err(store_failed)? {
        let entry = &stored.entry;
        let named = if packages.is_empty() {
            format!("{}, for which no name stands", escape(&entry.name))
        } else {
            packages.join(", ")
        };
        let (version, size, used) = (escape(&entry.version), entry.bytes >> 10, used.map(rfc3339));
        let last = used.as_deref().unwrap_or("never");
        let _infallible = writeln!(text, "{named}: {version}, {size} KiB, last used {last}\n  {}", stored.id);
        all.push(json!({
            "id": stored.id,
            "name": entry.name,
            "packages": packages,
            "version": entry.version,
            "bytes": entry.bytes,
            "used": used,
            "programs": entry.programs.keys().filter_map(|name| stored.program(Some(name))).collect::<Vec<_>>(),
            "integrity": entry.packages,
            "scripts": entry.scripts,
            "reached": entry.reached,
        }));
    }
    Ok((text, Value::from(all), Ending::Success))
}

fn verify(store: &Store) -> Result<(String, Value, Ending), Failure> {
    let (mut text, mut all, mut ending) = (String::new(), Vec::new(), Ending::Success);
    for Listed { stored, packages, .. } in store.list().map_err(store_failed)? {
        let differs = match Store::verify(&stored).map_err(store_failed)? {
            Verified::Same => Vec::new(),
            Verified::Differs(parts) => parts,
        };
        let (id, named) = (&stored.id, packages.join(", "));
        let told = match differs.is_empty() {
            true => format!("{id}  as it was installed  {named}"),
            false => format!(
                "{id}  differs in {}  {named}",
                differs.iter().map(|part| escape(part)).collect::<Vec<_>>().join(", ")
            ),
        };
        if !differs.is_empty() {
            ending = Ending::Altered;
        }
        let _infallible = writeln!(text, "{told}");
        all.push(json!({ "id": id, "packages": packages, "differs": differs }));
    }
    if ending != Ending::Success {
        text.push_str("hint: install it again, with the same `--with` and `--allow-scripts`: what differs is replaced\n");
    }
    Ok((text, Value::from(all), ending))
}
