//! The file as it is written, shared, damaged and full.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::guard::quarantine::Place;
use crate::sys::identity;

struct Scene {
    directory: PathBuf,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toolcell-state-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        Self { store: Store::new(&directory, identity::effective().0), directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("guard/s.json")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

fn kept_out() -> Place {
    Place::KeptOut { since: 1, because: "b".to_owned() }
}

#[test]
fn what_was_written_is_there_for_the_next_and_for_nobody_else() {
    let scene = Scene::new();
    assert!(scene.store.read("s").unwrap().tools.is_empty() && scene.store.servers().unwrap().is_empty());
    let mut held = scene.store.hold("s").unwrap();
    held.state.tool("t").0.place = kept_out();
    held.write().unwrap();
    drop(held);
    assert_eq!(scene.store.hold("s").unwrap().state.tools["t"].place, kept_out());
    assert_eq!(scene.store.servers().unwrap(), ["s"]);
    for file in ["s.json", "s.lock"] {
        let mode = fs::metadata(scene.directory.join("guard").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!scene.directory.join("guard/s.new").exists());
}

#[test]
fn who_changes_it_at_once_changes_it_one_after_the_other() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    // Who is not let in for long is told so, and asks again.
                    let mut held = loop {
                        match scene.store.hold("s") {
                            Err(StateError::Busy(_)) => {}
                            held => break held.unwrap(),
                        }
                    };
                    held.state.tool("t").0.time += 1;
                    held.write().unwrap();
                }
            });
        }
    });
    assert_eq!(scene.store.read("s").unwrap().tools["t"].time, 200);
}

#[test]
fn damage_is_an_error_and_no_fresh_start() {
    let scene = Scene::new();
    let mut held = scene.store.hold("s").unwrap();
    held.state.tool("t").0.place = kept_out();
    held.write().unwrap();
    drop(held);
    let whole = fs::read_to_string(scene.file()).unwrap();
    let digest = |text: &str| format!("{text}\n{}\n", to_hex(&Sha256::digest(text.as_bytes())));
    let older = digest(r#"{"schema":"toolcell.guard/0","tools":{}}"#);
    let unknown = digest(r#"{"schema":"toolcell.guard/1","tools":{},"more":1}"#);
    for text in
        ["", "{}", &whole[..whole.len() / 2], &whole.replace("\"since\":1", "\"since\":2"), &older, &unknown]
    {
        fs::write(scene.file(), text).unwrap();
        for error in [scene.store.read("s").unwrap_err(), scene.store.hold("s").unwrap_err()] {
            assert!(matches!(error, StateError::Damaged { .. }), "{text}: {error}");
            assert!(error.hint().unwrap().contains("mv '"));
        }
    }
    fs::write(scene.file(), &whole).unwrap();
    assert_eq!(scene.store.read("s").unwrap().tools["t"].place, kept_out());
    fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(scene.store.read("s").unwrap_err(), StateError::File(FileError::Mode { .. })));
}

#[test]
fn what_cannot_be_written_is_told_with_what_to_do() {
    let error = |source: io::Error| StateError::Io { path: "/v/it's".into(), source };
    let full = error(io::ErrorKind::StorageFull.into());
    assert_eq!(full.hint().unwrap(), r"make room: df '/v/it'\''s'");
    let other = error(io::ErrorKind::ReadOnlyFilesystem.into());
    assert_eq!(other.hint().unwrap(), r"see whose it is, and who may write there: ls -ld '/v/it'\''s'");
}

#[test]
fn tools_without_number_have_no_place_without_end_and_none_is_let_out_by_them() {
    let mut state = State::default();
    state.tool("bad").0.place = kept_out();
    for number in 0..1000_u64 {
        let (tool, new) = state.tool(&format!("t{number}"));
        assert!(new);
        tool.last = number + 1;
        tool.statuses.insert("completed".to_owned(), 2);
    }
    assert!(state.tools.len() <= TOOLS + 1);
    assert_eq!(state.tools["bad"].place, kept_out());
    assert!(state.tools.contains_key("t999") && !state.tools.contains_key("t0"));
    assert_eq!(state.calls(), 2000);
}
