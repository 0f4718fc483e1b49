//! The program that is installed, in the place of the runner that would fetch it each time.
//!
//! Neighbours: `install` fills the store, `compose` looks here before it follows a command. Never: fetches.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::install::store_failed;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::store::runner::{self, Unclear};
use crate::store::{Hold, Package, Store};
use crate::sys::identity;

/// The store of this user, if there is a place for one.
pub(super) fn store() -> Option<Store> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data.map(|data| Store::at(&data))
}

/// A runner was asked for something that toolcell does not do.
pub(super) fn unclear(error: Unclear) -> Failure {
    let hint = error.hint().to_owned();
    Failure::new(Ending::NotExecutable, error).hint(Some(hint))
}

#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("`{0}` is not installed, and its runner would fetch it each time")]
    Package(Package),
    #[error("`{package}` has no program `{program}`")]
    Program { package: Package, program: String },
    #[error("`{0}` has several programs, and none of its own name")]
    Several(Package),
}

/// What this process runs from, until it ends.
static HELD: Mutex<Vec<Hold>> = Mutex::new(Vec::new());

/// A command as it is run, and a variable that its program is to have.
type Instead<'c> = (Cow<'c, [String]>, Option<(String, String)>);

/// The installed program, where a command names its runner.
pub(super) fn instead<'c>(store: Option<&Store>, command: &'c [String]) -> Result<Instead<'c>, Failure> {
    let Some(asked) = runner::asked(command) else { return Ok((Cow::Borrowed(command), None)) };
    let asked = asked.map_err(unclear)?;
    let package = asked.package;
    let found =
        store.map(|store| store.find(&package, identity::effective().0)).transpose().map_err(store_failed)?;
    let Some((stored, hold)) = found.flatten() else {
        let hint = package.to_command(&[]);
        return Err(Failure::new(Ending::NotFound, Missing::Package(package)).hint(Some(hint)));
    };
    let Some(program) = stored.program(asked.program.as_deref()) else {
        let names: Vec<&str> = stored.entry.programs.keys().map(String::as_str).collect();
        let has = format!("it has: {}", names.join(", "));
        let (missing, hint) = match asked.program {
            Some(program) => (Missing::Program { package, program }, has),
            None => {
                let how = format!(
                    "name one, as in `npx -p {} PROGRAM`; {has}",
                    package.main.to_argument(package.registry)
                );
                (Missing::Several(package), how)
            }
        };
        return Err(Failure::new(Ending::NotFound, missing).hint(Some(hint)));
    };
    HELD.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
    let program = program.to_string_lossy().into_owned();
    Ok((Cow::Owned([program].into_iter().chain(asked.arguments).collect()), stored.environment()))
}
