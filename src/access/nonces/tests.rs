//! One file, several openings of it, and everything that can be wrong with it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const WINDOW: Duration = Duration::from_secs(300);
const NONCE: &str = "0123456789abcdef";

/// A directory of the test's own, gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolcell-nonces-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("nonces")
    }

    fn owner(&self) -> u32 {
        fs::metadata(&self.0).unwrap().uid()
    }

    fn at(&self, seconds: u64, window: Duration) -> Result<Nonces, NoncesError> {
        Nonces::open(&self.file(), self.owner(), window, Duration::from_secs(seconds))
    }

    fn open(&self, seconds: u64) -> Nonces {
        self.at(seconds, WINDOW).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn take(nonces: &mut Nonces, nonce: &str, timestamp: u64, now: u64) -> Taken {
    nonces.take("k", nonce, timestamp, Duration::from_secs(now)).unwrap()
}

#[test]
fn a_nonce_is_taken_once_here_elsewhere_and_afterwards() {
    let place = Place::new("once");
    let (mut one, mut other) = (place.open(1000), place.open(1000));
    assert_eq!(take(&mut one, NONCE, 1000, 1000), Taken::First);
    for again in [&mut one, &mut other] {
        assert_eq!(take(again, NONCE, 1000, 1001), Taken::Again);
        // Also in another second.
        assert_eq!(take(again, NONCE, 1001, 1001), Taken::Again);
    }
    assert_eq!(take(&mut other, "another-nonce-00", 1000, 1001), Taken::First);
    assert_eq!(take(&mut one, "another-nonce-00", 1000, 1001), Taken::Again);
    assert_eq!(other.take("l", NONCE, 1000, Duration::from_secs(1001)).unwrap(), Taken::First);
    drop((one, other));
    assert_eq!(take(&mut place.open(1300), NONCE, 1000, 1300), Taken::Again);
    assert_eq!(place.text(), format!("1000 k {NONCE}\n1000 k another-nonce-00\n1000 l {NONCE}\n"));
    assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn what_is_too_old_is_left_out_when_nobody_else_reads() {
    let place = Place::new("old");
    let mut first = place.open(1000);
    assert_eq!(take(&mut first, NONCE, 1000, 1000), Taken::First);
    assert_eq!(take(&mut first, "another-nonce-00", 1200, 1200), Taken::First);
    let before = place.text();
    let second = place.open(1301);
    assert_eq!(place.text(), before, "another has it open");
    drop((first, second));
    assert_eq!(place.open(1300).known.nonces.len(), 2, "the window's last moment");
    assert_eq!(place.text(), before);
    let mut third = place.open(1301);
    assert_eq!(place.text(), "1001 -\n1200 k another-nonce-00\n");
    assert_eq!(take(&mut third, "another-nonce-00", 1200, 1301), Taken::Again);
    assert_eq!(take(&mut third, "a-third-nonce-00", 1301, 1301), Taken::First);
    assert!(!place.0.join("new").exists() && !place.0.join("nonces.new").exists());
    // Whoever comes now reads the new file.
    assert_eq!(take(&mut place.open(1301), "a-third-nonce-00", 1301, 1301), Taken::Again);
}

#[test]
fn a_clock_that_is_set_back_and_a_wider_window_open_nothing() {
    let place = Place::new("back");
    let mut nonces = place.open(1000);
    assert_eq!(take(&mut nonces, NONCE, 1000, 1000), Taken::First);
    assert_eq!(take(&mut nonces, "another-nonce-00", 1400, 1400), Taken::First);
    assert_eq!(nonces.known.nonces.len(), 1, "kept no longer than needed");
    assert_eq!(take(&mut nonces, NONCE, 1000, 1000), Taken::TooOld);
    drop(nonces);
    drop(place.open(1400));
    let mut wider = place.at(1400, WINDOW * 10).unwrap();
    assert_eq!(take(&mut wider, NONCE, 1000, 1400), Taken::TooOld);
    assert_eq!(take(&mut wider, "a-third-nonce-00", 1001, 1400), Taken::First);
}

#[test]
fn a_line_that_was_cut_short_spoils_none_after_it() {
    let place = Place::new("torn");
    let (mut one, mut other) = (place.open(1000), place.open(1000));
    File::options().append(true).open(place.file()).unwrap().write_all(b"1000 k 01234").unwrap();
    assert_eq!(take(&mut one, NONCE, 1000, 1000), Taken::First);
    assert_eq!(take(&mut one, NONCE, 1000, 1000), Taken::Again);
    assert_eq!(take(&mut other, NONCE, 1000, 1000), Taken::Again);
    assert_eq!(take(&mut other, "another-nonce-00", 1000, 1000), Taken::First);
    assert_eq!(take(&mut one, "another-nonce-00", 1000, 1000), Taken::Again);
    assert_eq!(place.text(), format!("1000 k 01234\n1000 k {NONCE}\n1000 k another-nonce-00\n"));
}

#[test]
fn a_file_that_cannot_be_kept_lets_nothing_in() {
    let place = Place::new("kept");
    let mut nonces = place.open(1000);
    assert_eq!(take(&mut nonces, NONCE, 1000, 1000), Taken::First);
    File::options().write(true).open(place.file()).unwrap().set_len(3).unwrap();
    let now = Duration::from_secs(1000);
    assert_eq!(nonces.take("k", "another-nonce-00", 1000, now).unwrap_err().to_string(), "it was cut");
    drop(nonces);
    let mut read_only = place.open(1000);
    read_only.file = File::open(place.file()).unwrap();
    assert!(read_only.take("k", "another-nonce-00", 1000, now).is_err());
    assert!(read_only.known.nonces.is_empty());
    drop(read_only);
    // Somebody who does not let go.
    let lock = File::open(place.0.join("nonces.lock")).unwrap();
    let mut nonces = place.open(1000);
    lock.lock().unwrap();
    let told = nonces.take("k", NONCE, 1000, now).unwrap_err().to_string();
    assert_eq!(told, "another toolcell has had it locked for too long");
}

#[test]
fn a_file_that_could_be_somebody_elses_is_refused() {
    let place = Place::new("else");
    let told = |error: NoncesError| error.source.to_string();
    assert!(Nonces::open(&place.file(), place.owner() + 1, WINDOW, Duration::ZERO).is_err());
    fs::remove_file(place.0.join("nonces.lock")).unwrap();
    fs::write(place.0.join("real"), "").unwrap();
    std::os::unix::fs::symlink(place.0.join("real"), place.file()).unwrap();
    assert!(place.at(0, WINDOW).is_err());
    fs::remove_file(place.file()).unwrap();
    fs::write(place.file(), "").unwrap();
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(told(place.at(0, WINDOW).unwrap_err()).contains("alone (mode 0600)"));
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(place.at(0, WINDOW).is_ok());
    fs::hard_link(place.file(), place.0.join("second")).unwrap();
    assert!(place.at(0, WINDOW).is_err());
}
