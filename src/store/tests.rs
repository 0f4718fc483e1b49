//! The store as a whole: what is found, verified and collected.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::sys::identity;

struct Scene {
    top: PathBuf,
    store: Store,
}

impl Scene {
    fn new(name: &str) -> Self {
        let top = std::env::temp_dir().join(format!("toolcell-store-{name}-{}", std::process::id()));
        let store = Store::at(&top);
        Self { top, store }
    }

    fn owner() -> u32 {
        identity::effective().0
    }

    /// As an installation does it.
    fn put(&self, package: &str, id: &str) -> Package {
        let package: Package = package.parse().unwrap();
        let locked = self.store.lock(Self::owner(), || ()).unwrap();
        let tree = locked.place(id).unwrap();
        fs::create_dir_all(tree.join("node_modules/a/bin")).unwrap();
        fs::write(tree.join("node_modules/a/bin/a.js"), "1").unwrap();
        fs::set_permissions(tree.join("node_modules/a/bin/a.js"), Permissions::from_mode(0o4755)).unwrap();
        fs::create_dir(tree.join("node_modules/.bin")).unwrap();
        symlink("../a/bin/a.js", tree.join("node_modules/.bin/a")).unwrap();
        let bytes = seal(&tree, &[]).unwrap();
        let entry = Entry {
            name: "npm:a".to_owned(),
            version: "1".to_owned(),
            programs: [("a".to_owned(), "node_modules/.bin/a".to_owned())].into(),
            main: Some("a".to_owned()),
            interpreter: None,
            scripts: vec![],
            reached: vec![],
            packages: vec![],
            parts: parts(&tree, &tree).unwrap(),
            bytes,
        };
        locked.finish(id, &entry).unwrap();
        locked.assign(&package, id).unwrap();
        package
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        remove(&self.top).unwrap();
    }
}

#[test]
fn what_was_put_is_found_read_only_and_as_it_was() {
    let scene = Scene::new("found");
    let package = scene.put("npm:a", "npm-1");
    let (stored, _hold) = scene.store.find(&package, Scene::owner()).unwrap().unwrap();
    let program = stored.program(None).unwrap();
    assert_eq!(program, scene.store.root().join("npm-1/tree/node_modules/.bin/a"));
    assert_eq!(stored.program(Some("b")), None);
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(&stored.tree).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(Store::verify(&stored).unwrap(), Verified::Same);
    assert!(scene.store.find(&"npm:a@1".parse().unwrap(), Scene::owner()).unwrap().is_none());

    let file = stored.tree.join("node_modules/a/bin/a.js");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, "2").unwrap();
    assert_eq!(Store::verify(&stored).unwrap(), Verified::Differs(vec!["node_modules/a".to_owned()]));
}

#[test]
fn what_leads_out_of_a_tree_is_not_sealed() {
    let scene = Scene::new("sealed");
    let locked = scene.store.lock(Scene::owner(), || ()).unwrap();
    let tree = locked.place("npm-1").unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
    assert!(matches!(seal(&tree, &[]), Err(Unsealed::Outside(..))));
    let known = [(tree.join("link"), PathBuf::from("/etc/passwd"))];
    assert!(seal(&tree, &known).is_ok());
    assert!(matches!(seal(&tree, &[(tree.join("link"), "/etc/shadow".into())]), Err(Unsealed::Outside(..))));
    let tree = locked.place("npm-2").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(tree.join("pipe")).status().unwrap().success());
    assert!(matches!(seal(&tree, &[]), Err(Unsealed::Special(_))));
}

#[test]
fn what_is_half_done_or_has_no_name_or_was_not_used_goes() {
    let scene = Scene::new("collected");
    let a = scene.put("npm:a", "npm-1");
    scene.put("npm:a", "npm-2");
    scene.put("npm:b", "npm-3");
    let locked = scene.store.lock(Scene::owner(), || ()).unwrap();
    locked.place("npm-4").unwrap();
    let work = locked.work().unwrap();
    assert!(scene.store.stored("npm-4").unwrap().is_none());
    let collected = locked.collect(None).unwrap();
    let half = work.file_name().unwrap().to_str().unwrap().to_owned();
    let entries = vec!["npm-1".to_owned(), "npm-4".to_owned(), half];
    assert_eq!(collected, Collected { entries, bytes: 1, in_use: vec![] });
    assert_eq!(locked.collect(None).unwrap(), Collected::default());

    let day = Duration::from_secs(86_400);
    let old = File::open(scene.store.name(&a)).unwrap();
    old.set_modified(SystemTime::now() - 2 * day).unwrap();
    let collected = locked.collect(Some(day)).unwrap();
    assert_eq!(collected.entries, ["npm-2"]);
    assert!(scene.store.find(&a, Scene::owner()).unwrap().is_none());
    assert_eq!(scene.store.list().unwrap().len(), 1);
}

#[test]
fn a_store_that_others_can_reach_is_not_used() {
    let scene = Scene::new("shared");
    let package = scene.put("npm:a", "npm-1");
    fs::set_permissions(scene.store.root(), Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(scene.store.lock(Scene::owner(), || ()), Err(StoreError::Shared(_))));
    assert!(matches!(scene.store.find(&package, Scene::owner()), Err(StoreError::Shared(_))));
}

#[test]
fn what_is_run_from_stays_until_nobody_does() {
    let scene = Scene::new("held");
    let package = scene.put("npm:a", "npm-1");
    let (stored, hold) = scene.store.find(&package, Scene::owner()).unwrap().unwrap();
    let locked = scene.store.lock(Scene::owner(), || ()).unwrap();
    let nothing_goes = || {
        let collected = locked.collect(Some(Duration::ZERO)).unwrap();
        assert_eq!(collected, Collected { in_use: vec!["npm-1".to_owned()], ..Collected::default() });
        assert!(stored.is_as_installed());
    };
    nothing_goes();
    assert!(scene.store.find(&package, Scene::owner()).unwrap().is_some());
    locked.assign(&package, "npm-2").unwrap();
    nothing_goes();
    assert!(matches!(locked.place("npm-1"), Err(StoreError::InUse(_))));
    assert!(stored.is_as_installed());
    drop(hold);
    // What another test forked in between has a copy of it until it executes or ends.
    while locked.collect(None).unwrap().entries != ["npm-1"] {
        std::thread::yield_now();
    }
}

#[test]
fn an_entry_that_is_removed_is_none_from_the_first_moment() {
    const ALONE: &str = "TOOLCELL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // In a process of its own, whose descriptors no other test needs.
        let name = "store::tests::an_entry_that_is_removed_is_none_from_the_first_moment";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        assert!(
            output.status.success() && output.stdout.windows(8).any(|text| text == b"1 passed"),
            "{output:?}"
        );
        return;
    }
    let scene = Scene::new("removed");
    let package = scene.put("npm:a", "npm-1");
    // Nothing can be listed any more, so that the removal fails.
    let full: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(remove(&scene.store.root().join("npm-1")).is_err());
    drop(full);
    assert!(scene.store.root().join("npm-1/tree").exists());
    assert!(scene.store.find(&package, Scene::owner()).unwrap().is_none());
}

#[test]
fn what_is_deep_or_closed_is_removed_and_what_is_strange_stops_nothing() {
    let scene = Scene::new("strange");
    let package = scene.put("npm:a", "npm-1");
    let root = scene.store.root();
    let locked = scene.store.lock(Scene::owner(), || ()).unwrap();
    let tree = locked.place("npm-2").unwrap();
    let name = "n".repeat(200);
    for _ in 0..40 {
        // A path of 8,000 bytes, from its end.
        let (inner, outer) = (tree.join(&name), tree.join("outer"));
        fs::create_dir(&outer).unwrap();
        fs::write(outer.join("0"), "").unwrap();
        if inner.exists() {
            fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
            fs::rename(&inner, outer.join(&name)).unwrap();
            fs::set_permissions(outer.join(&name), Permissions::from_mode(0o000)).unwrap();
        }
        fs::rename(outer, inner).unwrap();
    }
    fs::create_dir(tree.join("0")).unwrap();
    fs::create_dir(root.join("npm-3")).unwrap();
    fs::write(root.join("npm-3").join(ENTRY), "{").unwrap();
    fs::write(root.join("stray"), "of a person").unwrap();
    fs::write(root.join("names/half.new"), "{").unwrap();
    fs::write(root.join("names/broken"), "{").unwrap();
    let long = Name { package: "npm:b".to_owned(), entry: "n".repeat(300) };
    fs::write(root.join("names/long"), serde_json::to_vec(&long).unwrap()).unwrap();
    assert_eq!(locked.collect(None).unwrap().entries, ["npm-2", "npm-3"]);
    assert_eq!(entries(root).unwrap(), ["lock", "names", "npm-1", "stray"]);
    assert_eq!(entries(&root.join("names")).unwrap().len(), 1);
    assert_eq!(scene.store.list().unwrap().len(), 1);
    assert!(scene.store.find(&package, Scene::owner()).unwrap().is_some());
}

#[test]
fn who_waits_for_another_hears_of_it() {
    let scene = Scene::new("waits");
    let locked = scene.store.lock(Scene::owner(), || panic!("nobody else has it")).unwrap();
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let store = &scene.store;
        scope.spawn(move || store.lock(Scene::owner(), || tell.send(()).unwrap()).map(drop));
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(locked);
    });
}
