//! The tokens that count: those of the file as it is now. A session looks at each request whether it has changed.
//!
//! Neighbours: [`super::gate`] asks before it looks for a token; `commands::run` says how the file is read, which the
//! supervisor may not open itself. Never: goes on with tokens that may have been taken back.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use crate::policy::Source;
use crate::policy::tokens::{Token, parse};

/// A file that was changed less long ago may change again without another time: clocks of file systems tick in
/// hundredths of a second, some in seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// Reads the text of the file.
type Read = dyn Fn() -> io::Result<String>;

/// What of a file changes when it is written or replaced: device, inode, size, and the times of content and inode.
type Stamp = [i64; 7];

struct File {
    path: PathBuf,
    read: Box<Read>,
    /// As it was when it was read; `None`: it was not there. Without it, it has to be read.
    seen: Option<Option<Stamp>>,
}

/// Tokens, and the file that they are from.
pub(super) struct Known {
    pub(super) tokens: Vec<Token>,
    file: Option<File>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Known").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Known {
    pub(super) const fn new(tokens: Vec<Token>) -> Self {
        Self { tokens, file: None }
    }

    /// From here on the file is read again when it has changed, and with the first request.
    pub(super) fn reread(&mut self, path: PathBuf, read: impl Fn() -> io::Result<String> + 'static) {
        self.file = Some(File { path, read: Box::new(read), seen: None });
    }

    /// Reads the file again if it has changed. Says whether it was read; `date` is the time of the clock after 1970.
    pub(super) fn refresh(&mut self, date: Duration) -> Result<bool, String> {
        let Some(file) = &mut self.file else { return Ok(false) };
        // Before it is read: what changes meanwhile is another stamp then.
        let stamp = match fs::metadata(&file.path) {
            Ok(metadata) => Some(stamp(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.lost(&error.to_string())),
        };
        if file.seen == Some(stamp) {
            return Ok(false);
        }
        let text = match (file.read)() {
            Ok(text) => text,
            Err(error) => return Err(self.lost(&error.to_string())),
        };
        let source = Source { name: String::new(), path: Some(file.path.clone()), text };
        match parse(&source) {
            Ok(tokens) => {
                let changed = stamp.map_or(0, |[.., seconds, _nanos]| seconds);
                let settled = Duration::from_secs(u64::try_from(changed).unwrap_or(0)) + SETTLED < date;
                file.seen = (settled || stamp.is_none()).then_some(stamp);
                self.tokens = tokens;
                Ok(true)
            }
            Err(mistakes) => Err(self.lost(&mistakes.to_string())),
        }
    }

    /// No token counts until the file can be read again.
    fn lost(&mut self, why: &str) -> String {
        self.tokens.clear();
        if let Some(file) = &mut self.file {
            file.seen = None;
        }
        why.to_owned()
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    let bits = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
    [
        bits(metadata.dev()),
        bits(metadata.ino()),
        bits(metadata.size()),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn entry(id: &str) -> String {
        format!(
            "[[tokens]]\nid = \"{id}\"\nidentity = \"i\"\nsalt = \"{}\"\nhash = \"{}\"\nexpires = 2100-01-01T00:00:00Z\n",
            "00".repeat(16),
            "00".repeat(32)
        )
    }

    fn ids(known: &Known) -> Vec<&str> {
        known.tokens.iter().map(|token| token.id.as_str()).collect()
    }

    struct Scene(PathBuf);

    impl Drop for Scene {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    fn scene() -> (Scene, Known, Rc<Cell<u32>>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toolcell-known-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let reads: Rc<Cell<u32>> = Rc::default();
        let (counted, at) = (Rc::clone(&reads), path.clone());
        let mut known = Known::new(Vec::new());
        known.reread(path.clone(), move || {
            counted.set(counted.get() + 1);
            match fs::read_to_string(&at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                text => text,
            }
        });
        (Scene(path), known, reads)
    }

    /// Long after every change.
    const LATER: Duration = Duration::from_secs(1 << 40);

    #[test]
    fn a_token_counts_as_long_as_it_is_in_the_file() {
        let (scene, mut known, reads) = scene();
        fs::write(&scene.0, entry("a") + &entry("b")).unwrap();
        assert_eq!((known.refresh(LATER), ids(&known)), (Ok(true), vec!["a", "b"]));
        // What has not changed is not read.
        assert_eq!((known.refresh(LATER), reads.get()), (Ok(false), 1));
        fs::write(&scene.0, entry("b")).unwrap();
        assert_eq!((known.refresh(LATER), ids(&known)), (Ok(true), vec!["b"]));
        // A file of the same size in its place.
        let other = scene.0.with_extension("new");
        fs::write(&other, entry("c")).unwrap();
        fs::rename(other, &scene.0).unwrap();
        assert_eq!((known.refresh(LATER), ids(&known)), (Ok(true), vec!["c"]));
        fs::remove_file(&scene.0).unwrap();
        assert_eq!((known.refresh(LATER), ids(&known)), (Ok(true), vec![]));
        assert_eq!((known.refresh(LATER), reads.get()), (Ok(false), 4));
    }

    #[test]
    fn what_was_changed_just_now_is_read_again_until_it_is_settled() {
        let (scene, mut known, reads) = scene();
        fs::write(&scene.0, entry("a")).unwrap();
        let changed = Duration::from_secs(u64::try_from(fs::metadata(&scene.0).unwrap().ctime()).unwrap());
        for later in [0, 1, 3] {
            assert_eq!(known.refresh(changed + Duration::from_secs(later)), Ok(true));
        }
        assert_eq!(known.refresh(changed + Duration::from_secs(4)), Ok(true));
        assert_eq!((known.refresh(changed + Duration::from_secs(5)), reads.get()), (Ok(false), 4));
    }

    #[test]
    fn no_token_counts_while_the_file_cannot_be_read() {
        let (scene, mut known, _reads) = scene();
        fs::write(&scene.0, entry("a")).unwrap();
        assert_eq!(known.refresh(LATER), Ok(true));
        for text in ["[[tokens", "tokens = 1", &entry("a").replace("expires", "expired")] {
            fs::write(&scene.0, text).unwrap();
            for _ in 0..2 {
                assert!(known.refresh(LATER).is_err(), "{text}");
                assert!(known.tokens.is_empty());
            }
        }
        fs::write(&scene.0, [0xff]).unwrap();
        assert!(known.refresh(LATER).is_err());
        fs::write(&scene.0, entry("a")).unwrap();
        assert_eq!((known.refresh(LATER), ids(&known)), (Ok(true), vec!["a"]));
    }
}
