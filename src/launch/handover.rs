//! What init is told when the payload of a cell that waits may start: to go on, and the secrets that this payload gets.
//!
//! They go from the supervisor to init over init's own channel, past the launcher and past the plan, which says nothing of
//! them; so no other cell can get them, and `explain` has nothing to show.
//!
//! Neighbours: `launch::supervisor` sends, `launch::init` receives. Never: writes a secret to where it is not memory.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::LaunchError;
use crate::plan::step::Step;
use crate::sys::wiped::Wiped;
use crate::sys::{Errno, Result, descriptor, socket};

/// What a held init waits for, from who has the other end of its channel.
const GO: &[u8; 2] = b"go";
/// And behind it the length of the message with the secrets, which follows if there are any.
const FIRST: usize = GO.len() + 4;
/// The longest message: a tool's secrets, and the names of their places.
const MESSAGE_MOST: usize = 96 * 1024;
/// In front of each: kind, length of the name, length of the value.
const HEAD: usize = 1 + 2 + 4;

/// How the payload gets a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As a variable of its environment, in place of one of the same name.
    Variable,
    /// As a file of its own that only it can read, in the scratch directory.
    File,
}

/// The message of a call.
#[derive(Debug, Default)]
pub struct Handover {
    message: Wiped,
    doors: Vec<(usize, Wiped)>,
}

impl Handover {
    /// Without secrets.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// With what the cell's doors put in, each by its place in the policy. Init is told nothing of it.
    #[must_use]
    pub fn with_doors(self, doors: Vec<(usize, Wiped)>) -> Self {
        Self { doors, ..self }
    }

    /// What doors put in.
    pub(super) fn doors(&self) -> &[(usize, Wiped)] {
        &self.doors
    }

    /// With these: kind, name of the variable or path, value. `None` when it is too much for one message.
    #[must_use]
    pub fn of<'s>(secrets: impl IntoIterator<Item = (Kind, &'s str, &'s [u8])>) -> Option<Self> {
        // Room for all of it: nothing is moved.
        let mut message = Wiped::with_room(MESSAGE_MOST);
        for (kind, name, value) in secrets {
            message.extend(&[match kind {
                Kind::Variable => b'v',
                Kind::File => b'f',
            }]);
            message.extend(&u16::try_from(name.len()).ok()?.to_le_bytes());
            message.extend(&u32::try_from(value.len()).ok()?.to_le_bytes());
            message.extend(name.as_bytes());
            message.extend(value);
        }
        (message.len() <= MESSAGE_MOST).then_some(Self { message, doors: Vec::new() })
    }

    /// Tells init.
    ///
    /// # Errors
    /// The kernel's errno, also when init is dead.
    pub(super) fn send(&self, channel: BorrowedFd<'_>) -> Result<()> {
        let length = u32::try_from(self.message.len()).map_err(|_longer| Errno(libc::EMSGSIZE))?;
        socket::send(channel, &[GO.as_slice(), &length.to_le_bytes()].concat(), &[])?;
        if length == 0 {
            return Ok(());
        }
        socket::send(channel, &self.message, &[])
    }
}

/// What init was given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) variables: Vec<(String, Wiped)>,
    files: Vec<(String, Wiped)>,
}

/// Init's side: waits until it may go on.
///
/// # Errors
/// `EINTR` by SIGTERM, `EPIPE` when nobody is there any more, `EPROTO` for what is no such message.
pub(super) fn receive(channel: BorrowedFd<'_>) -> Result<Given> {
    let mut first = [0; FIRST];
    let length = match (descriptor::read(channel, &mut first)?, first) {
        (0, _) => return Err(Errno(libc::EPIPE)),
        (FIRST, [b'g', b'o', length @ ..]) => u32::from_le_bytes(length),
        _ => return Err(Errno(libc::EPROTO)),
    };
    let length = usize::try_from(length).map_err(|_longer| Errno(libc::EMSGSIZE))?;
    if length > MESSAGE_MOST {
        return Err(Errno(libc::EMSGSIZE));
    }
    // Only now: a cell without secrets goes on also where there is no memory for them.
    let mut message = Wiped::from(vec![0; length]);
    if length > 0 && descriptor::read(channel, message.room(0))? != length {
        return Err(Errno(libc::EPROTO));
    }
    parse(&message).ok_or(Errno(libc::EPROTO))
}

/// What is wrong where init received nothing; `None` where it is to end: by SIGTERM, or because nobody is there any more.
pub(super) fn failure(errno: Errno) -> Option<LaunchError> {
    match errno {
        Errno(libc::EINTR | libc::EPIPE) => None,
        errno => Some(LaunchError::new("secrets", "handover", errno)),
    }
}

fn parse(message: &[u8]) -> Option<Given> {
    let mut rest = message;
    let mut given = Given::default();
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(HEAD)?;
        let [kind, n0, n1, v0, v1, v2, v3] = *head else { return None };
        let (name, after) = after.split_at_checked(u16::from_le_bytes([n0, n1]).into())?;
        let length = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
        let (value, after) = after.split_at_checked(length)?;
        let list = match kind {
            b'v' => &mut given.variables,
            b'f' => &mut given.files,
            _ => return None,
        };
        let mut copy = Wiped::with_room(value.len());
        copy.extend(value);
        list.push((std::str::from_utf8(name).ok()?.to_owned(), copy));
        rest = after;
    }
    Some(given)
}

impl Given {
    /// Makes the files, and forgets their content.
    ///
    /// # Errors
    /// The file, and the kernel's errno; `EOPNOTSUPP` where the scratch directory is not memory.
    pub(super) fn write_files(&mut self, steps: &[Step]) -> std::result::Result<(), LaunchError> {
        for (path, value) in self.files.drain(..) {
            let failed = |errno| LaunchError::new("secrets", path.as_str(), errno);
            let below = |step: &Step| matches!(step, Step::MountScratch { path: scratch, .. } if Path::new(&path).starts_with(scratch));
            if !steps.iter().any(below) {
                return Err(failed(Errno(libc::EOPNOTSUPP)));
            }
            write(Path::new(&path), &value).map_err(|error| failed(Errno::from_io(&error)))?;
        }
        Ok(())
    }
}

fn write(path: &Path, value: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(value)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_handed_over_arrives_and_half_of_it_is_nothing() {
        let (ours, theirs) = socket::pair().unwrap();
        let secrets = [(Kind::Variable, "TOKEN", b"value\n\0".as_slice()), (Kind::File, "/tmp/a", b"")];
        Handover::of(secrets).unwrap().send(ours.as_fd()).unwrap();
        let given = receive(theirs.as_fd()).unwrap();
        assert_eq!(given.variables.len(), 1);
        assert_eq!(
            (given.variables[0].0.as_str(), &*given.variables[0].1),
            ("TOKEN", b"value\n\0".as_slice())
        );
        assert_eq!((given.files[0].0.as_str(), given.files[0].1.len()), ("/tmp/a", 0));
        Handover::nothing().send(ours.as_fd()).unwrap();
        let given = receive(theirs.as_fd()).unwrap();
        assert!(given.variables.is_empty() && given.files.is_empty());
        let message = Handover::of(secrets).unwrap();
        for cut in (1..message.message.len()).filter(|cut| *cut != HEAD + 5 + 7) {
            assert!(parse(&message.message[..cut]).is_none(), "{cut}");
        }
        drop(ours);
        assert_eq!(receive(theirs.as_fd()).unwrap_err(), Errno(libc::EPIPE));
        assert!(Handover::of([(Kind::Variable, "A", vec![b'x'; MESSAGE_MOST].as_slice())]).is_none());
    }

    #[test]
    fn what_is_no_message_is_told_and_no_end_by_a_signal() {
        let (ours, theirs) = socket::pair().unwrap();
        let too_long = u32::try_from(MESSAGE_MOST + 1).unwrap().to_le_bytes();
        for (sent, errno) in
            [(b"gone".to_vec(), libc::EPROTO), ([GO.as_slice(), &too_long].concat(), libc::EMSGSIZE)]
        {
            socket::send(ours.as_fd(), &sent, &[]).unwrap();
            let error = failure(receive(theirs.as_fd()).unwrap_err()).unwrap();
            assert_eq!(error, LaunchError::new("secrets", "handover", Errno(errno)));
            assert_eq!(error.hint(), None);
        }
        drop(ours);
        assert_eq!(failure(receive(theirs.as_fd()).unwrap_err()), None);
        assert_eq!(failure(Errno(libc::EINTR)), None);
    }

    #[test]
    fn a_file_is_written_in_scratch_memory_only() {
        let mut given = Given { variables: vec![], files: vec![("/tmp/a".to_owned(), Wiped::default())] };
        assert_eq!(given.write_files(&[]).unwrap_err().errno, Errno(libc::EOPNOTSUPP));
    }
}
