//! The log with one writer and with many, whole, torn, cut, large, and out of reach.

use std::fs;

use serde_json::{Value, json};

use super::super::chain::{digest, sealed};
use super::super::test_directory::TestDirectory;
use super::*;
use crate::policy::tokens::to_hex;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn writers_that_share_a_log_and_writers_that_do_not_leave_whole_lines() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let shared = Log::open(&path, directory.owner).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let (path, shared) = (&path, &shared);
            scope.spawn(move || {
                let own = Log::open(path, directory.owner).unwrap();
                let log = if writer % 2 == 0 { shared } else { &own };
                for number in 0..100 {
                    let filling = "\n".repeat(writer * 700 + number);
                    log.write(&json!({ "writer": writer, "record": number, "text": filling })).unwrap();
                }
            });
        }
    });
    let lines = lines(&path);
    assert_eq!(lines.len(), 600);
    for writer in 0..6 {
        let own: Vec<_> = lines.iter().filter(|line| line["writer"] == writer).collect();
        assert!(own.iter().map(|line| line["record"].as_u64().unwrap()).eq(0..100));
    }
    assert!(lines.iter().map(|line| line["number"].as_u64().unwrap()).eq(1..=600));
}

#[test]
fn an_unfinished_line_is_sealed_by_the_next_record_or_start() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let log = Log::open(&path, directory.owner).unwrap();
    assert!(log.remarks().is_empty());
    log.write(&json!({"a": 1})).unwrap();
    let tear = |text: &[u8]| File::options().append(true).open(&path).unwrap().write_all(text).unwrap();
    tear(b"{\"torn\":");
    log.write(&json!({"a": 2})).unwrap();
    tear(b"\n\nx");
    let log = Log::open(&path, directory.owner).unwrap();
    assert!(log.remarks()[0].contains("3 bytes"));
    log.write(&json!({"a": 3})).unwrap();

    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[1], lines[4], lines[5], lines[6]), ("{\"torn\":", "", "", "x"));
    let events: Vec<Value> = [2, 7].map(|at| serde_json::from_str(lines[at]).unwrap()).into();
    assert_eq!(events[0]["event"], "torn");
    assert_eq!((&events[0]["bytes"], &events[1]["bytes"]), (&json!(9), &json!(4)));
    assert_eq!(events[1]["sha256"], to_hex(&digest(b"\n\nx\n")));
    let numbers: Vec<u64> =
        lines.iter().filter_map(|line| Some(sealed(line.as_bytes())?.link.number)).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[test]
fn a_log_that_is_emptied_goes_on_with_its_numbers() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let log = Log::open(&path, directory.owner).unwrap();
    log.write(&json!({"a": 1})).unwrap();
    log.write(&json!({"a": 2})).unwrap();
    File::create(&path).unwrap();
    log.write(&json!({"a": 3})).unwrap();
    assert_eq!(lines(&path)[0]["number"], 3);
}

fn numbers(path: &Path) -> Vec<u64> {
    lines(path).iter().map(|line| line["number"].as_u64().unwrap()).collect()
}

fn started() -> Value {
    json!({"event": "started", "time": "2026-11-22T14:05:09.000123Z"})
}

const LARGE: Bounds = Bounds { size: 1, age: Duration::from_secs(1 << 32) };

#[test]
fn a_large_or_old_log_becomes_an_earlier_file_and_who_has_it_open_goes_on_in_the_new_one() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let old = Bounds { age: Duration::ZERO, ..Bounds::default() };
    let open = |bounds| Log::open_within(&path, directory.owner, bounds).unwrap();
    // There is nothing to set aside yet.
    drop(open(LARGE));
    let first = open(Bounds::default());
    first.write(&started()).unwrap();
    first.write(&started()).unwrap();
    drop(open(LARGE));
    first.write(&started()).unwrap();
    drop(open(old));
    first.write(&started()).unwrap();
    let earlier = rotate::earlier(&path).unwrap();
    assert_eq!(earlier, ["log.1", "log.3"].map(|name| directory.path.join(name)));
    assert_eq!((numbers(&earlier[0]), numbers(&earlier[1])), (vec![1, 2], vec![3, 4]));
    assert_eq!(numbers(&path), [5, 6]);
    let continued = &lines(&path)[0];
    assert_eq!((&continued["event"], &continued["count"]), (&json!("continued"), &json!(4)));
    assert_eq!(continued["previous"], "log.3");
    // Killed between the two steps: the file is not there.
    fs::remove_file(&path).unwrap();
    fs::remove_file(directory.path.join("log.checkpoint")).unwrap();
    open(Bounds::default()).write(&started()).unwrap();
    assert_eq!(numbers(&path), [5, 6]);
}

#[test]
fn a_log_that_is_removed_is_begun_anew_and_the_gap_is_said_and_found() {
    for earlier in [false, true] {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        let first = Log::open(&path, directory.owner).unwrap();
        first.write(&started()).unwrap();
        if earlier {
            drop(Log::open_within(&path, directory.owner, LARGE).unwrap());
        }
        let second = Log::open(&path, directory.owner).unwrap();
        first.write(&started()).unwrap();
        first.write(&started()).unwrap();
        let before = lines(&path).pop().unwrap();
        fs::remove_file(&path).unwrap();
        first.write(&started()).unwrap();
        second.write(&started()).unwrap();
        let new = lines(&path);
        let at = new.len() - 3;
        let said = ["event", "previous", "count", "head"].map(|name| &new[at][name]);
        assert_eq!(said, [&json!("continued"), &json!(""), &before["number"], &before["chain"]]);
        let number = before["number"].as_u64().unwrap();
        assert_eq!(numbers(&path)[at..], [number + 1, number + 2, number + 3]);
        let mut reader = super::super::Reader::default();
        for file in rotate::earlier(&path).unwrap().iter().chain([&path]) {
            reader.read(io::BufReader::new(File::open(file).unwrap())).unwrap();
        }
        reader.read_kept(Some(b""));
        let found = reader.verdict(super::super::Known::default()).findings;
        let wrong: Vec<String> = found.iter().map(|finding| finding.wrong.sentence()).collect();
        let gone = if earlier { "records 3 to 4 were removed" } else { "records 1 to 3 were removed" };
        assert_eq!(wrong, [gone], "{new:?}");
    }
}

#[test]
fn a_log_that_somebody_puts_an_empty_file_in_the_place_of_goes_on_in_that() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let log = Log::open(&path, directory.owner).unwrap();
    log.write(&started()).unwrap();
    fs::remove_file(&path).unwrap();
    drop(open_private(&path, directory.owner, true).unwrap());
    log.write(&started()).unwrap();
    log.write(&started()).unwrap();
    assert_eq!(numbers(&path), [2, 3]);
}

#[test]
fn a_log_that_becomes_large_while_it_is_open_is_rotated_by_who_writes() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let bounds = Bounds { size: 2000, ..Bounds::default() };
    let logs: Vec<Log> = (0..3).map(|_| Log::open_within(&path, directory.owner, bounds).unwrap()).collect();
    std::thread::scope(|scope| {
        for log in &logs {
            scope.spawn(move || {
                for _ in 0..60 {
                    log.write(&started()).unwrap();
                }
            });
        }
    });
    let earlier = rotate::earlier(&path).unwrap();
    assert!(earlier.len() > 5, "{earlier:?}");
    let all: Vec<Value> = earlier.iter().chain([&path]).flat_map(|file| lines(file)).collect();
    assert_eq!(all.iter().filter(|line| line["event"] == "started").count(), 180);
    let turns = u64::try_from(earlier.len()).unwrap();
    assert!(all.iter().map(|line| line["number"].as_u64().unwrap()).eq(1..=180 + turns));
    // No file is much larger than it may be, and each says which one it goes on from.
    for file in &earlier {
        assert!(fs::metadata(file).unwrap().len() < 2000 + 600);
    }
    let mut reader = super::super::Reader::default();
    for file in earlier.iter().chain([&path]) {
        reader.read(io::BufReader::new(File::open(file).unwrap())).unwrap();
    }
    // Nothing was signed, so nothing has to be kept beside the log.
    reader.read_kept(Some(b""));
    assert!(reader.verdict(super::super::Known::default()).findings.is_empty());
}

#[test]
fn who_may_open_nothing_gets_the_new_file_and_writes_nowhere_without_it() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let bounds = Bounds::default();
    let (owner, at) = (directory.owner, path.clone());
    let given = Log::open(&path, owner)
        .unwrap()
        .reopening(move || Log::fresh(&at, owner, bounds).map_err(io::Error::other));
    given.write(&started()).unwrap();
    drop(Log::open_within(&path, owner, LARGE).unwrap());
    given.write(&started()).unwrap();
    assert_eq!(numbers(&path), [2, 3]);
    let none = Log::open(&path, owner).unwrap().reopening(|| Err(io::ErrorKind::NotConnected.into()));
    drop(Log::open_within(&path, owner, LARGE).unwrap());
    assert!(matches!(none.write(&started()), Err(LogError::Write { .. })));
    assert_eq!(numbers(&path), [4]);
    // It is time for a new one, which cannot be had: what is there is still the log.
    let large = Log::open_within(&path, owner, bounds).unwrap();
    let large = Log { bounds: LARGE, ..large }.reopening(|| Err(io::ErrorKind::NotConnected.into()));
    large.write(&started()).unwrap();
    large.write(&started()).unwrap();
    assert_eq!(numbers(&path), [4, 5, 6]);
}

#[test]
fn a_full_disk_is_an_error() {
    let file = File::options().read(true).append(true).open("/dev/full").unwrap();
    let file = Arc::new(file);
    let mut full = Inner::new(Arc::clone(&file), file);
    let source = full.append(Some(b"{\"a\":1}\n".to_vec())).unwrap_err();
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(full.link, Link::default());
    let error = LogError::Write { path: PathBuf::from("/var/log/x"), source };
    assert!(error.hint().unwrap().starts_with("make room"));
}

#[test]
fn what_is_no_object_is_no_record() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let log = Log::open(&path, directory.owner).unwrap();
    assert!(matches!(log.write(&1), Err(LogError::Write { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_lock_that_is_kept_stops_the_call_and_not_the_supervisor() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let log = Log::open(&path, directory.owner).unwrap();
    let holder = File::open(&path).unwrap();
    holder.lock().unwrap();
    let error = log.write_within(Duration::ZERO, &json!({"a": 1})).unwrap_err();
    assert!(matches!(error, LogError::Busy(_)) && error.hint().is_some());
    drop(holder);
    log.write(&json!({"a": 2})).unwrap();
    assert_eq!(lines(&path)[0]["a"], 2);
}
