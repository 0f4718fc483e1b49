//! Paths and texts of a profile: variables replaced, and only what can be granted is accepted.
//!
//! Neighbours: `policy::profile` and `policy::add` check every path here. Never: looks at the file system; whether
//! a path exists, or is a symbolic link, is found out when a plan is made.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::mistakes::closest;

/// Where a cell's private scratch directory is. The host's directory of that name is never granted.
pub const SCRATCH: &str = "/tmp";

/// Where programs lie that every user of a host may run.
pub const OF_THE_SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/nix"];

/// The variables that a path or a value in a profile can begin with or hold.
pub const VARIABLES: [&str; 4] = ["home", "workspace", "config", "scratch"];

/// What the variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'w> {
    /// The user's home directory, if it is known.
    pub home: Option<&'w Path>,
    /// The directory that the tool works on.
    pub workspace: &'w Path,
    /// The directory of the file that holds the rule; a built-in profile has none.
    pub config: Option<&'w Path>,
}

/// Why a path or value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// Nothing is there.
    #[error("the path is empty")]
    Empty,
    /// NUL, newline or another control character.
    #[error("the path holds a control character")]
    Control,
    /// Bytes that are no UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// It does not begin at the root.
    #[error("`{0}` is a relative path")]
    Relative(String),
    /// It has a component `.` or `..`.
    #[error("`{0}` has a component `.` or `..`")]
    Dots(String),
    /// It is, or lies beneath, a path that no cell gets from the host.
    #[error("`{path}` cannot be granted: {why}")]
    Reserved {
        /// The path.
        path: String,
        /// The reason.
        why: &'static str,
    },
    /// A variable that does not exist.
    #[error("unknown variable `{{{0}}}`")]
    UnknownVariable(String),
    /// A variable that stands for nothing here.
    #[error("`{{{name}}}` stands for nothing: {why}")]
    Unset {
        /// Its name.
        name: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// A variable in the middle of a path.
    #[error("the variable `{{{0}}}` does not stand at the beginning of the path")]
    NotFirst(String),
    /// A brace without its partner.
    #[error("a single brace in `{0}`")]
    Brace(String),
}

impl PathError {
    /// What to write instead, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Relative(path) => {
                let path = path.trim_start_matches("./");
                Some(match path.strip_prefix("~/").or((path == "~").then_some("")) {
                    Some(rest) => format!("write `{{home}}/{rest}`").replace("/`", "`"),
                    None => format!(
                        "write `{{config}}/{path}` (next to this file) or `{{workspace}}/{path}`, or the whole path"
                    ),
                })
            }
            Self::Dots(_) => Some("write the path that is meant, without them".to_owned()),
            Self::UnknownVariable(name) => Some(match closest(name, VARIABLES) {
                Some(meant) => format!("did you mean `{{{meant}}}`?"),
                None => "variables are `{home}`, `{workspace}`, `{config}`, `{scratch}`; \
                         a brace itself is written `{{` or `}}`"
                    .to_owned(),
            }),
            Self::Brace(_) => Some("a brace itself is written `{{` or `}}`".to_owned()),
            Self::Empty
            | Self::Control
            | Self::NotUtf8
            | Self::Reserved { .. }
            | Self::Unset { .. }
            | Self::NotFirst(_) => None,
        }
    }
}

/// What a grant may never show, and why.
const RESERVED: [(&str, &str); 4] = [
    ("/sys/fs/cgroup", "it holds the limits of the cells"),
    ("/sys", "it shows and changes the machine itself"),
    ("/proc", "a cell has a `/proc` of its own, with its own processes only"),
    ("/dev", "a cell has a `/dev` of its own, with harmless devices only"),
];

impl Variables<'_> {
    fn value(&self, name: &str) -> Result<&str, PathError> {
        let path = match name {
            "home" => self.home.ok_or(PathError::Unset { name: "home", why: "`HOME` is not set" })?,
            "workspace" => self.workspace,
            "config" => {
                let why = "a built-in profile lies in no directory";
                self.config.ok_or(PathError::Unset { name: "config", why })?
            }
            "scratch" => Path::new(SCRATCH),
            unknown => return Err(PathError::UnknownVariable(unknown.to_owned())),
        };
        path.to_str().ok_or(PathError::NotUtf8)
    }

    /// Replaces variables anywhere in a text; `{{` and `}}` are braces.
    ///
    /// # Errors
    /// A variable that is unknown or stands for nothing, or a brace alone.
    pub fn expand(&self, text: &str) -> Result<String, PathError> {
        self.replace(text, false)
    }

    /// Makes a path of a text that may begin with a variable: absolute, without `.`, `..` and double slashes.
    ///
    /// # Errors
    /// What [`PathError`] lists; whether the path may be granted is asked with [`grantable`].
    pub fn path(&self, text: &str) -> Result<PathBuf, PathError> {
        normal(&self.replace(text, true)?)
    }

    fn replace(&self, text: &str, only_first: bool) -> Result<String, PathError> {
        let lone = || PathError::Brace(text.to_owned());
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, tail) = rest.split_at_checked(at).ok_or_else(lone)?;
            out.push_str(before);
            if let Some(after) = tail.strip_prefix("{{") {
                out.push('{');
                rest = after;
            } else if let Some(after) = tail.strip_prefix("}}") {
                out.push('}');
                rest = after;
            } else {
                let (name, after) =
                    tail.strip_prefix('{').and_then(|t| t.split_once('}')).ok_or_else(lone)?;
                let value = self.value(name)?;
                if only_first && (!out.is_empty() || !(after.is_empty() || after.starts_with('/'))) {
                    return Err(PathError::NotFirst(name.to_owned()));
                }
                out.push_str(value);
                rest = after;
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// The normal form of an absolute path: no double or trailing slashes.
///
/// # Errors
/// A path that is empty, relative, or has `.`, `..` or control characters in it.
pub fn normal(text: &str) -> Result<PathBuf, PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if !text.starts_with('/') {
        return Err(PathError::Relative(text.to_owned()));
    }
    let components = text.split('/').filter(|component| !component.is_empty());
    if components.clone().any(|component| component == "." || component == "..") {
        return Err(PathError::Dots(text.to_owned()));
    }
    Ok(Path::new("/").join(components.collect::<PathBuf>()))
}

/// Whether a path in normal form is another one, or lies beneath it. As [`Path::starts_with`], which takes both apart.
#[must_use]
pub fn is_within(path: &Path, top: &Path) -> bool {
    let (path, top) = (path.as_os_str().as_bytes(), top.as_os_str().as_bytes());
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || top == b"/")
}

/// Checks that a normal path can be granted at all.
///
/// # Errors
/// The paths that a cell makes itself, that hold its limits, or that are everything.
pub fn grantable(path: &Path) -> Result<(), PathError> {
    let shown = || path.display().to_string();
    if path == Path::new("/") {
        let why = "it is everything; name the directories that are needed";
        return Err(PathError::Reserved { path: shown(), why });
    }
    if path == Path::new(SCRATCH) {
        let why = "a cell has a private `/tmp` of its own; name what is needed beneath it";
        return Err(PathError::Reserved { path: shown(), why });
    }
    match RESERVED.iter().find(|(reserved, _)| path.starts_with(reserved)) {
        Some((_, why)) => Err(PathError::Reserved { path: shown(), why }),
        None => Ok(()),
    }
}

/// A text in which `expand` finds nothing to replace and gives it back.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> Variables<'static> {
        Variables {
            home: Some(Path::new("/home/u")),
            workspace: Path::new("/srv/p"),
            config: Some(Path::new("/etc/cells")),
        }
    }

    #[test]
    fn variables_are_replaced_at_the_beginning_of_a_path() {
        let path = |text: &str| variables().path(text).unwrap().display().to_string();
        assert_eq!(path("{home}"), "/home/u");
        assert_eq!(path("{workspace}/src//x/"), "/srv/p/src/x");
        assert_eq!(path("{config}/data"), "/etc/cells/data");
        assert_eq!(path("{scratch}"), "/tmp");
        assert_eq!(path("/a/{{b}}"), "/a/{b}");
        assert_eq!(path("//"), "/");
    }

    proptest! {
        #[test]
        fn is_within_says_what_the_components_say(path in "(/[ab]{1,2}){0,3}", top in "(/[ab]{1,2}){0,3}") {
            let whole = |text: &str| if text.is_empty() { PathBuf::from("/") } else { PathBuf::from(text) };
            let (path, top) = (whole(&path), whole(&top));
            prop_assert_eq!(is_within(&path, &top), path.starts_with(&top));
        }
    }

    #[test]
    fn a_path_that_cannot_be_meant_is_refused() {
        let error = |text: &str| {
            let error = variables().path(text).and_then(|path| grantable(&path)).unwrap_err();
            error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}: {hint}"))
        };
        assert_eq!(error(""), "the path is empty");
        assert_eq!(error("/a\0b"), "the path holds a control character");
        assert_eq!(error("/a\nb"), "the path holds a control character");
        assert_eq!(error("~/x"), "`~/x` is a relative path: write `{home}/x`");
        assert_eq!(error("~"), "`~` is a relative path: write `{home}`");
        assert_eq!(
            error("./data"),
            "`./data` is a relative path: write `{config}/data` (next to this file) or `{workspace}/data`, \
             or the whole path"
        );
        assert_eq!(error("/a/../etc").split(':').next(), Some("`/a/../etc` has a component `.` or `..`"));
        assert_eq!(error("/a/./b").split(':').next(), Some("`/a/./b` has a component `.` or `..`"));
        assert_eq!(error("{hom}/x"), "unknown variable `{hom}`: did you mean `{home}`?");
        assert_eq!(error("/x/{home}"), "the variable `{home}` does not stand at the beginning of the path");
        assert_eq!(error("{home}x"), "the variable `{home}` does not stand at the beginning of the path");
        assert_eq!(error("/x{"), "a single brace in `/x{`: a brace itself is written `{{` or `}}`");
        for reserved in
            ["/", "/proc", "/proc/self", "/sys", "/sys/fs/cgroup/x", "/dev/null", "/tmp", "{scratch}"]
        {
            assert!(error(reserved).contains("cannot be granted"), "{reserved}");
        }
        for neighbour in ["/process", "/system", "/developer", "/tmp/x", "/tmpfiles"] {
            grantable(Path::new(neighbour)).unwrap();
        }
    }

    #[test]
    fn a_variable_that_stands_for_nothing_is_refused() {
        let nothing = Variables { home: None, workspace: Path::new("relative"), config: None };
        assert_eq!(
            nothing.path("{home}/x").unwrap_err().to_string(),
            "`{home}` stands for nothing: `HOME` is not set"
        );
        assert!(matches!(nothing.path("{config}"), Err(PathError::Unset { .. })));
        assert!(matches!(nothing.path("{workspace}/x"), Err(PathError::Relative(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_a_normal_path_or_refused(text in any::<String>()) {
            if let Ok(path) = variables().path(&text) {
                prop_assert!(path.is_absolute());
                prop_assert_eq!(normal(path.to_str().unwrap()), Ok(path.clone()));
                prop_assert_eq!(variables().path(&escape(path.to_str().unwrap())), Ok(path));
            }
        }

        #[test]
        fn an_escaped_text_is_given_back(text in any::<String>()) {
            prop_assert_eq!(variables().expand(&escape(&text)), Ok(text));
        }
    }
}
