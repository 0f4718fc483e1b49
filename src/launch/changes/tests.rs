//! What a hostile cell may leave in its memory, made by hand, and hosts that change meanwhile.

use std::fs::{self, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::outcome::ChangeKind;
use crate::plan::step::Access;
use crate::sys::{descriptor, identity, process};

/// A directory of the host's, and what stands for the memory of a cell.
struct Scene {
    place: PathBuf,
    plan: Plan,
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.place).unwrap();
    }
}

impl Scene {
    fn new(name: &str) -> Self {
        let place = PathBuf::from(format!("/var/tmp/toolcell-changes-{}-{name}", process::pid()));
        let (host, upper) = (place.join("host"), place.join("memory/0/upper"));
        fs::create_dir_all(host.join("sub")).unwrap();
        fs::create_dir_all(&upper).unwrap();
        fs::write(host.join("file"), "old").unwrap();
        fs::write(host.join("sub/inner"), "old").unwrap();
        let steps = vec![
            Step::MountChanges { size: 1 << 20, inodes: 1024 },
            Step::MountOverlay {
                source: host.clone(),
                target: host,
                access: Access { write: true, ..Access::default() },
                owner: (identity::effective().0 == 0).then_some((0, 0)),
                kept: vec!["home/.bashrc".into()],
                denied: vec![],
                left: vec![],
            },
        ];
        Self { place, plan: Plan { floor: serde_json::from_str("\"full\"").unwrap(), steps } }
    }

    fn host(&self, name: &str) -> PathBuf {
        self.place.join("host").join(name)
    }

    fn upper(&self, name: &str) -> PathBuf {
        let path = self.place.join("memory/0/upper").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// A cell that was built now.
    fn kept(&self) -> Kept {
        let host = fs::metadata(self.host("")).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let since = (i64::try_from(now.as_secs()).unwrap(), i64::from(now.subsec_nanos()));
        Kept { beneath: vec![(host.dev(), host.ino())], since }
    }

    fn review(&self, kept: &Kept) -> std::result::Result<Review<'_>, LaunchError> {
        let memory = descriptor::open_at(
            descriptor::working_directory(),
            &root::text(&self.place.join("memory")).unwrap(),
            libc::O_PATH | libc::O_DIRECTORY,
        );
        Review::of(&self.plan, memory.unwrap().as_fd(), kept)
    }

    /// What is refused, by the rule.
    fn refused(&self) -> Vec<String> {
        let review = self.review(&self.kept()).unwrap();
        assert_eq!(review.apply().unwrap().verdict, Verdict::Refused);
        review.objections.iter().map(|objection| objection.rule.clone()).collect()
    }

    fn assert_untouched(&self) {
        let names =
            |path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(self.host("")).len(), 2, "{:?}", names(self.host("")));
        assert_eq!(
            (fs::read(self.host("file")).unwrap(), names(self.host("sub")).len()),
            (b"old".to_vec(), 1)
        );
    }
}

#[test]
fn a_file_of_every_hostile_kind_keeps_all_others_from_the_host() {
    type Plant = fn(&Path);
    let cases: [(&str, Plant, &str); 10] = [
        ("link", |path| symlink("/etc/passwd", path).unwrap(), "symbolic link"),
        ("file", |path| symlink("/etc/passwd", path).unwrap(), "symbolic link"),
        ("socket", |path| drop(UnixListener::bind(path).unwrap()), "device, pipe or socket"),
        ("setuid", |path| planted(path, 0o4755), "set-user-ID"),
        ("setgid", |path| planted(path, 0o2755), "set-user-ID"),
        ("sticky", |path| planted(path, 0o1755), "set-user-ID"),
        ("sub", |path| planted(path, 0o644), "no file of a directory"),
        (
            "sub",
            |path| {
                fs::create_dir(path).unwrap();
                fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
            },
            "modes of directories",
        ),
        (
            "group",
            |path| {
                fs::create_dir(path).unwrap();
                fs::set_permissions(path, Permissions::from_mode(0o2755)).unwrap();
            },
            "set-user-ID",
        ),
        ("home/.bashrc", |path| planted(path, 0o644), "the protection of"),
    ];
    for (number, (name, plant, rule)) in cases.into_iter().enumerate() {
        let scene = Scene::new(&format!("kind-{number}"));
        planted(&scene.upper("innocent"), 0o644);
        plant(&scene.upper(name));
        let refused = scene.refused();
        assert!(refused.iter().any(|found| found.contains(rule)), "{name}: {refused:?}");
        scene.assert_untouched();
    }
}

fn planted(path: &Path, mode: u32) {
    fs::write(path, "new").unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn names_that_cannot_be_shown_and_too_many_of_them_are_refused() {
    for (number, name) in ["a\nb", "a\u{7f}", "a\u{202e}b"].into_iter().enumerate() {
        let scene = Scene::new(&format!("name-{number}"));
        planted(&scene.upper(name), 0o644);
        assert!(scene.refused()[0].contains("text that can be shown"), "{name:?}");
    }
    let scene = Scene::new("bytes");
    planted(&scene.upper("x").with_file_name(std::ffi::OsStr::from_bytes(b"a\xff")), 0o644);
    assert!(scene.refused()[0].contains("text that can be shown"));
    let scene = Scene::new("deep");
    planted(&scene.upper(&format!("{}x", "d/".repeat(review::DEPTH_MOST))), 0o644);
    assert!(scene.refused()[0].contains("directories deep"));
    let scene = Scene::new("many");
    for number in 0..=review::NAMES_MOST {
        fs::create_dir(scene.upper(&number.to_string())).unwrap();
    }
    assert!(scene.refused()[0].contains("no more than 4096 names"));
    scene.assert_untouched();
}

#[test]
fn many_names_of_one_file_are_as_many_files() {
    let scene = Scene::new("names");
    let first = scene.upper("0");
    fs::write(&first, vec![b'x'; 1 << 18]).unwrap();
    for number in 1..4 {
        fs::hard_link(&first, scene.upper(&number.to_string())).unwrap();
    }
    assert!(scene.review(&scene.kept()).unwrap().is_allowed());
    fs::hard_link(&first, scene.upper("4")).unwrap();
    assert!(scene.refused()[0].contains("no more than 1048576 bytes"));
}

#[test]
fn what_the_host_changed_since_the_cell_was_built_is_not_undone() {
    let scene = Scene::new("later");
    planted(&scene.upper("file"), 0o644);
    let before = Kept { since: (0, 0), ..scene.kept() };
    let review = scene.review(&before).unwrap();
    assert!(
        review.objections[0].rule.contains("the host changed since the call began"),
        "{:?}",
        review.objections
    );
    let review = scene.review(&scene.kept()).unwrap();
    assert_eq!(review.told(Verdict::Applied).files[0].kind, ChangeKind::Changed);
    // Between the look and the deed.
    fs::write(scene.host("file"), "other").unwrap();
    let (told, error) = review.apply().unwrap_err();
    assert_eq!((told.verdict, error.errno), (Verdict::Refused, Errno(libc::ESTALE)));
    assert_eq!(fs::read(scene.host("file")).unwrap(), b"other");
    assert_eq!(fs::read_dir(scene.host("")).unwrap().count(), 2, "nothing of ours is left");
}

#[test]
fn a_directory_that_became_a_link_leads_nowhere() {
    let scene = Scene::new("swapped");
    let outside = scene.place.join("outside");
    fs::create_dir(&outside).unwrap();
    planted(&scene.upper("sub/new"), 0o644);
    planted(&scene.upper("also"), 0o644);
    fs::set_permissions(scene.upper("sub"), fs::metadata(scene.host("sub")).unwrap().permissions()).unwrap();
    let review = scene.review(&scene.kept()).unwrap();
    fs::rename(scene.host("sub"), scene.place.join("away")).unwrap();
    symlink(&outside, scene.host("sub")).unwrap();
    let (told, error) = review.apply().unwrap_err();
    assert_eq!((told.verdict, error.errno), (Verdict::Refused, Errno(libc::ELOOP)));
    assert!(!scene.host("also").exists() && fs::read_dir(&outside).unwrap().next().is_none());
    // And another directory under the name of the grant.
    let kept = scene.kept();
    fs::rename(scene.host(""), scene.place.join("elsewhere")).unwrap();
    fs::create_dir(scene.host("")).unwrap();
    assert_eq!(scene.review(&kept).unwrap_err().errno, Errno(libc::ESTALE));
}

#[test]
fn a_name_that_came_to_exist_meanwhile_is_not_overwritten() {
    let scene = Scene::new("came");
    planted(&scene.upper("one"), 0o644);
    planted(&scene.upper("two"), 0o644);
    let review = scene.review(&scene.kept()).unwrap();
    fs::write(scene.host("two"), "host").unwrap();
    assert_eq!(review.apply().unwrap_err().0.verdict, Verdict::Refused);
    assert!(!scene.host("one").exists());
    assert_eq!(fs::read(scene.host("two")).unwrap(), b"host");
}

#[test]
fn what_is_told_is_bounded() {
    let scene = Scene::new("told");
    for number in 0..60 {
        planted(&scene.upper(&format!("{}/{number}", "long".repeat(60))), 0o644);
    }
    let review = scene.review(&scene.kept()).unwrap();
    let told = review.told(Verdict::Applied);
    assert_eq!((told.files.len(), told.left_out), (TOLD_MOST, 61 - TOLD_MOST as u64));
    assert!(told.files.iter().all(|file| file.path.len() <= TEXT_MOST + "…".len()));
    let reviewed = Reviewed { changes: Some(told), violations: vec![], error: None };
    assert!(serde_json::to_vec(&reviewed).unwrap().len() < super::super::launcher::MESSAGE_LIMIT / 2);
}

/// As root: what is done is done as the owner of the grant, who is stopped where his rights end.
#[test]
fn the_rights_are_those_of_the_grants_owner() {
    const OWNER: u32 = 12_345;
    if identity::effective().0 != 0 {
        return;
    }
    let mut scene = Scene::new("owner");
    for step in &mut scene.plan.steps {
        if let Step::MountOverlay { owner, .. } = step {
            *owner = Some((OWNER, OWNER));
        }
    }
    for path in [scene.host(""), scene.host("file")] {
        std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER)).unwrap();
    }
    for name in ["new", "file"] {
        planted(&scene.upper(name), 0o600);
    }
    let done = scene.review(&scene.kept()).unwrap().apply().unwrap();
    assert_eq!((done.verdict, done.files.len()), (Verdict::Applied, 2));
    for name in ["new", "file"] {
        let made = fs::metadata(scene.host(name)).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (OWNER, OWNER, 0o600));
    }
    assert_eq!(identity::effective().0, 0);
    // A directory of root's in it.
    planted(&scene.upper("sub/inner"), 0o644);
    planted(&scene.upper("again"), 0o644);
    fs::set_permissions(scene.upper("sub"), fs::metadata(scene.host("sub")).unwrap().permissions()).unwrap();
    let (told, error) = scene.review(&scene.kept()).unwrap().apply().unwrap_err();
    assert_eq!(
        (told.verdict, error.step.as_str(), error.errno),
        (Verdict::Refused, "apply", Errno(libc::EACCES))
    );
    assert!(!scene.host("again").exists());
    assert_eq!(fs::read(scene.host("sub/inner")).unwrap(), b"old");
    // It is root again, who makes what root makes.
    fs::write(scene.place.join("own"), "").unwrap();
    assert_eq!(fs::metadata(scene.place.join("own")).unwrap().uid(), 0);
}

/// Sets an attribute, which std cannot.
fn attribute(path: &Path, name: &str) {
    let program = "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], b'y')";
    let status = std::process::Command::new("python3").args(["-c", program]).arg(path).arg(name).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_directory_hides_the_hosts_only_by_the_word_of_its_own_overlay() {
    let mut scene = Scene::new("hides");
    fs::create_dir(scene.upper("sub")).unwrap();
    fs::set_permissions(scene.upper("sub"), fs::metadata(scene.host("sub")).unwrap().permissions()).unwrap();
    attribute(&scene.upper("sub"), "user.overlay.opaque");
    let of = |scene: &Scene| scene.review(&scene.kept()).unwrap().told(Verdict::Applied).files;
    let [Change { kind: ChangeKind::Deleted, path, .. }] = &of(&scene)[..] else {
        panic!("{:?}", of(&scene))
    };
    assert!(path.ends_with("sub/inner"));
    // The overlay of a cell of root uses another, and this one is the tool's.
    scene.plan.steps.push(Step::SetIds { uid: 1, gid: 1 });
    assert!(of(&scene).is_empty());
}
