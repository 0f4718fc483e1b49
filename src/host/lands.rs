//! Where a path in an argument leads on this host.
//!
//! Neighbours: `arguments` asks, by way of `commands::run`; `host::runtime` follows the links. Never: opens anything.

use std::path::{Component, Path, PathBuf};

use super::runtime::Files;
use crate::arguments::World;

impl World for Files {
    /// What does not exist lies in the deepest directory of it that does.
    fn lands(&self, path: &Path) -> Option<PathBuf> {
        for above in path.ancestors() {
            let Ok(found) = self.resolve(above) else { continue };
            let rest = path.strip_prefix(above).ok()?;
            // What is above a name that is not there, nobody can say.
            let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
            let next = rest.components().next().map(|next| found.real.join(next));
            let hides = next.is_some_and(|next| self.is_link(&next));
            return (plain && !hides).then(|| found.real.join(rest));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_and_what_is_not_there_lies_where_it_would_be() {
        let top = std::env::temp_dir().join(format!("toolcell-lands-{}", std::process::id()));
        let top = {
            std::fs::create_dir_all(top.join("data/sub")).unwrap();
            top.canonicalize().unwrap()
        };
        std::os::unix::fs::symlink("/etc", top.join("data/away")).unwrap();
        std::os::unix::fs::symlink("nowhere", top.join("data/dangling")).unwrap();
        std::os::unix::fs::symlink("sub", top.join("data/near")).unwrap();
        let files = Files::of_host();
        let lands = |path: &str| files.lands(&top.join(path));
        assert_eq!(lands("data/near/x"), Some(top.join("data/sub/x")));
        assert_eq!(lands("data/near/../x"), Some(top.join("data/x")));
        assert_eq!(lands("data/away/passwd"), Some(PathBuf::from("/etc/passwd")));
        assert_eq!(lands("data/away/none/x"), Some(PathBuf::from("/etc/none/x")));
        assert_eq!(lands("data/none/deep"), Some(top.join("data/none/deep")));
        assert_eq!(lands("data/none/../away"), None);
        assert_eq!(lands("data/dangling"), None);
        assert_eq!(lands("data/dangling/x"), None);
        std::fs::remove_dir_all(top).unwrap();
    }
}
