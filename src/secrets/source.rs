//! Reads a secret from where the configuration says it is, and checks it: readable by nobody else, as long as it must be,
//! of the right form, not too old.
//!
//! Neighbours: [`super::keeper`] and `commands::secrets` ask, [`super::command`] runs programs. Never: says what it has read.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::bytes::Regex;

use super::state::{self, State};
use super::{LONGEST, Loaded, SHORTEST, Trouble, command};
use crate::policy::config::secrets::{From, Place, Secret, expression};
use crate::policy::units::print_duration;
use crate::sys::wiped::Wiped;
use crate::text::quoted_path;

/// Different bytes that a secret has at least: what repeats a few is in innocent texts, and slow to look for.
const DIFFERENT: usize = 4;

/// All secrets of a configuration, and where their values are.
#[derive(Debug)]
pub struct Sources {
    secrets: Vec<(String, Secret, Option<Regex>)>,
    /// Taken out of the environment.
    variables: BTreeMap<String, Wiped>,
    /// `$CREDENTIALS_DIRECTORY`
    credentials: Option<PathBuf>,
    uid: u32,
}

/// What was found when a secret was read.
#[derive(Debug)]
pub struct Seen {
    /// Its bytes, if they could be had.
    pub value: Option<Wiped>,
    /// Whether they are of the form that is asked for, if one is.
    pub format: Option<bool>,
    /// How old it is, where anything tells.
    pub age: Option<Duration>,
    /// Whether it may be used.
    pub state: State,
    /// Why not.
    pub trouble: Option<Trouble>,
}

impl Sources {
    /// They are numbered in this order. `uid` is who toolcell runs as.
    #[must_use]
    pub fn new<'s>(
        secrets: impl IntoIterator<Item = (&'s String, &'s Secret)>,
        variables: BTreeMap<String, Wiped>,
        credentials: Option<PathBuf>,
        uid: u32,
    ) -> Self {
        let secrets = secrets.into_iter().map(|(name, secret)| {
            // What does not compile is a mistake of the file.
            let format = secret.format.as_deref().and_then(|format| expression(format).ok());
            (name.clone(), secret.clone(), format)
        });
        Self { secrets: secrets.collect(), variables, credentials, uid }
    }

    /// Reads the secret of this number, in the order of their names; `gone` tells by an error that nobody waits any more.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load(
        &self,
        number: usize,
        now: Duration,
        gone: Option<BorrowedFd<'_>>,
    ) -> Result<Loaded, Trouble> {
        let Seen { value, age, state, trouble, .. } = self.look(number, now, gone);
        match (trouble, value) {
            (Some(trouble), _) => Err(Trouble { state, age_s: age.map(|age| age.as_secs()), ..trouble }),
            (None, Some(value)) => Ok(Loaded { value, state, age }),
            (None, None) => Err(Trouble::new("it has no value")),
        }
    }

    /// The same, with all that is to be said of it.
    #[must_use]
    pub fn look(&self, number: usize, now: Duration, gone: Option<BorrowedFd<'_>>) -> Seen {
        let mut seen = Seen { value: None, format: None, age: None, state: State::Unreadable, trouble: None };
        let Some((name, secret, format)) = self.secrets.get(number) else {
            seen.trouble = Some(Trouble::new("no secret has this number"));
            return seen;
        };
        let (value, dated) = match self.read(&secret.from, gone) {
            Ok(read) => read,
            Err(trouble) => {
                seen.trouble = Some(trouble);
                return seen;
            }
        };
        seen.format = format.as_ref().map(|format| format.is_match(&value));
        let fault = fault(&value, secret, seen.format);
        seen.value = Some(value);
        match secret.rotated.or(dated).map(|made| state::age(made, now)).transpose() {
            Ok(age) => seen.age = age,
            Err(state::Ahead) => {
                let trouble = Trouble::new("its date is more than a day ahead of the clock");
                seen.trouble = Some(trouble.hint("set the clock, or write the right `rotated`"));
                return seen;
            }
        }
        seen.trouble = fault;
        if seen.trouble.is_some() {
            return seen;
        }
        seen.state = state::of(secret, seen.age);
        if seen.state == State::Overdue {
            let most = print_duration(secret.max_age.unwrap_or_default());
            let (old, hint) = match seen.age {
                Some(age) => (format!("it is {} old", print_age(age)), rotate(name, secret)),
                None => {
                    let hint = "add the day, as in `rotated = 2027-01-31`".to_owned();
                    ("nothing tells how old it is".to_owned(), hint)
                }
            };
            seen.trouble = Some(Trouble::new(format!("{old}, and `max-age` is {most}")).hint(hint));
        }
        seen
    }

    /// The value, and the date of its file where that tells anything.
    fn read(&self, from: &From, gone: Option<BorrowedFd<'_>>) -> Result<(Wiped, Option<u64>), Trouble> {
        match from {
            From::Env(name) => match self.variables.get(name) {
                Some(value) => Ok((value.clone(), None)),
                None => Err(Trouble::new(format!("the environment variable `{name}` is not set")).hint(
                    "set it for the process that starts toolcell, which takes it out of its environment",
                )),
            },
            From::File { path, shared } => {
                let (mut file, metadata) = self.open(path)?;
                self.private(path, &metadata, *shared)?;
                Ok((self.content(path, &mut file)?, Some(date(&metadata))))
            }
            From::Credential(name) => {
                let Some(directory) = &self.credentials else {
                    return Err(Trouble::new("`CREDENTIALS_DIRECTORY` is not set")
                        .hint(format!("start toolcell from a unit with `LoadCredential={name}:…`")));
                };
                let path = directory.join(name);
                let (mut file, _) = self.open(&path)?;
                Ok((self.content(&path, &mut file)?, None))
            }
            From::Command { argv, timeout } => {
                let value = command::run(argv, *timeout, gone).map_err(|trouble| {
                    trouble.or_hint(format!(
                        "run it as user {} without a terminal: it must print the secret alone, and end with 0",
                        self.uid
                    ))
                })?;
                Ok((without_newline(value), None))
            }
            From::Age { path, identity, timeout } => {
                let (file, metadata) = self.open(path)?;
                let (key, of_key) = self.open(identity)?;
                self.private(identity, &of_key, false)?;
                drop((file, key));
                let text = |path: &Path| path.to_string_lossy().into_owned();
                let argv = ["age".to_owned(), "-d".to_owned(), "-i".to_owned(), text(identity), text(path)];
                let value = command::run(&argv, *timeout, gone).map_err(|trouble| {
                    trouble.or_hint(format!(
                        "try `age -d -i {} {}`; a key with a passphrase cannot be used, nobody is there to type it",
                        text(identity),
                        text(path)
                    ))
                })?;
                Ok((without_newline(value), Some(date(&metadata))))
            }
        }
    }

    fn failed(&self, path: &Path, error: &io::Error) -> Trouble {
        let trouble = Trouble::new(format!("cannot read `{}`", path.display())).because(error.to_string());
        trouble.hint(match error.kind() {
            io::ErrorKind::NotFound => {
                "put the secret there, or name the file that it is in in `from`".to_owned()
            }
            io::ErrorKind::Other => "name a file in `from`".to_owned(),
            _ => format!(
                "user {} must be able to read it, and to search the directories above: ls -ld {}",
                self.uid,
                quoted_path(path)
            ),
        })
    }

    fn open(&self, path: &Path) -> Result<(File, Metadata), Trouble> {
        // Non-blocking, so that a FIFO in the file's place cannot hold the call up.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = file.map_err(|error| self.failed(path, &error))?;
        let metadata = file.metadata().map_err(|error| self.failed(path, &error))?;
        if !metadata.is_file() {
            return Err(self.failed(path, &io::Error::other("not a regular file")));
        }
        Ok((file, metadata))
    }

    fn content(&self, path: &Path, file: &mut File) -> Result<Wiped, Trouble> {
        let mut value = Wiped::with_room(8 * 1024);
        value.fill(file, LONGEST + 2).map_err(|error| self.failed(path, &error))?;
        Ok(without_newline(value))
    }

    /// Refuses a file that others can read, unless they may, or change.
    fn private(&self, path: &Path, metadata: &Metadata, shared: bool) -> Result<(), Trouble> {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let shown = path.display();
        if owner != self.uid && owner != 0 {
            let trouble = Trouble::new(format!("`{shown}` belongs to user {owner}"));
            return Err(trouble.hint(format!("chown {} '{shown}'", self.uid)));
        }
        if mode & 0o022 != 0 {
            let trouble = Trouble::new(format!("`{shown}` has mode {mode:04o}: others can change it"));
            return Err(trouble.hint(format!("chmod 600 '{shown}'")));
        }
        if mode & 0o044 != 0 && !shared {
            let trouble = Trouble::new(format!("`{shown}` has mode {mode:04o}: others can read it"));
            return Err(trouble.hint(format!("chmod 600 '{shown}', or write `shared = true` in `from`")));
        }
        Ok(())
    }
}

/// What is wrong with a value, whatever its age.
fn fault(value: &[u8], secret: &Secret, format: Option<bool>) -> Option<Trouble> {
    let length = value.len();
    let mut seen = [false; 256];
    value.iter().for_each(|byte| {
        if let Some(seen) = seen.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    });
    let trouble = if value.is_empty() {
        Trouble::new("it is empty").hint(format!(
            "put the secret into the {}, or give `from` the right source",
            secret.from.describe()
        ))
    } else if length < SHORTEST {
        Trouble::new(format!(
            "it has fewer than {SHORTEST} bytes, too few to be taken out of what a tool says"
        ))
        .hint("use a longer one")
    } else if seen.iter().filter(|seen| **seen).count() < DIFFERENT {
        Trouble::new("it repeats so few bytes that it cannot be taken out of what a tool says")
            .hint("use one that was made at random")
    } else if length > LONGEST {
        Trouble::new(format!("it is longer than {LONGEST} bytes"))
            .hint("look whether the right secret is there, alone; keep what is that long elsewhere, encrypted, and its key here")
    } else if matches!(secret.into, Place::Env(_)) && value.contains(&0) {
        Trouble::new("it holds a NUL, which no environment variable can")
            .hint("give it `into = { file = \"/tmp/…\" }`")
    } else if matches!(secret.into, Place::Header(_)) && !value.iter().all(|byte| (0x20..0x7f).contains(byte))
    {
        Trouble::new("it holds what no header can: more than printable ASCII in one line")
            .hint("look whether the right secret is there, alone")
    } else if format == Some(false) {
        Trouble::new("it is not of the form that `format` asks for")
            .hint("look whether the right secret is there, whole and without quotes or spaces around it")
    } else {
        return None;
    };
    Some(trouble)
}

/// How an overdue secret is replaced.
fn rotate(name: &str, secret: &Secret) -> String {
    let day = match secret.rotated {
        Some(_) => format!(" and the day in `rotated` of `[secrets.{}]`", crate::policy::print::key(name)),
        None => String::new(),
    };
    format!("rotate it: replace what is in the {}{day}", secret.from.describe())
}

/// An age in days, or less.
#[must_use]
pub fn print_age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// One from before 1970 is as old as one of then: not of no age.
fn date(metadata: &Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

/// Without the newline that editors and programs put behind a text.
fn without_newline(mut value: Wiped) -> Wiped {
    let text = value.strip_suffix(b"\n").map(|text| text.strip_suffix(b"\r").unwrap_or(text));
    if let Some(length) = text.map(<[u8]>::len) {
        value.truncate(length);
    }
    value
}
