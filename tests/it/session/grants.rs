//! What a call's arguments say of what its cell sees. Never: looks inside.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session, text};

/// `data` with two files, for everybody to read and change.
pub(super) fn tree(scratch: &Scratch) -> String {
    let data = scratch.0.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    for (name, content) in [("a", "one"), ("b", "two")] {
        fs::write(data.join(name), content).unwrap();
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    symlink("/etc/passwd", data.join("away")).unwrap();
    data.to_str().unwrap().to_owned()
}

/// The tools `read-listed` and `list-listed` have the names in a directory, and nothing else.
pub(super) fn setup(data: &str) -> Setup {
    let grants = |access: &str| {
        format!("grants = [{{ argument = \"/granted\", access = \"{access}\", within = [\"{data}\"] }}]")
    };
    let config = format!(
        "[servers.fixture.tools.read]\n{read}\n[servers.fixture.tools.list]\n{read}\n[servers.fixture.tools.change]\n{write}\n[servers.fixture.tools.append]\n{write}\n\
         [servers.fixture.tools.read-listed]\n{list}\n[servers.fixture.tools.list-listed]\n{list}\n[servers.fixture.tools.change-listed]\n{list}\n",
        read = grants("read"),
        write = grants("write"),
        list = grants("list"),
    );
    Setup { config, filesystem: format!("write = [\"{data}\"]"), ..Setup::default() }
}

pub(super) async fn call(client: &mut Client, tool: &str, path: &str, granted: &str) -> Value {
    let arguments = json!({"path": path, "granted": granted});
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    client.request(1, "tools/call", json!({"name": tool, "arguments": arguments, "_meta": meta})).await
}

#[test]
fn a_call_sees_the_file_that_it_names_and_not_the_tree() {
    let scratch = Scratch::new();
    let data = tree(&scratch);
    let (a, b) = (format!("{data}/a"), format!("{data}/b"));
    session(&setup(&data), |mut client| async move {
        assert_eq!(text(&call(&mut client, "read", &a, &a).await), "one");
        assert_eq!(text(&call(&mut client, "read", &b, &a).await), "ENOENT");
        assert_eq!(text(&call(&mut client, "read", &b, &b).await), "two");
        assert_eq!(text(&call(&mut client, "list", &data, &data).await), "a away b");
        assert_eq!(text(&call(&mut client, "change", &a, &a).await), "ok");
        assert_eq!(text(&call(&mut client, "change", &b, &a).await), "ENOENT");
        assert_eq!(fs::read_to_string(&b).unwrap(), "two");
        assert_eq!(text(&call(&mut client, "read", &a, &a).await), "more");
        client
    });
}

#[test]
fn a_list_has_names_and_no_contents() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let (a, inner) = (format!("{data}/a"), format!("{data}/inner"));
    fs::create_dir(&inner).unwrap();
    fs::write(format!("{inner}/c"), "three").unwrap();
    session(&setup(&data), |mut client| async move {
        assert_eq!(text(&call(&mut client, "list-listed", &data, &data).await), "a away b inner");
        assert_eq!(text(&call(&mut client, "list-listed", &inner, &data).await), "c");
        assert_eq!(text(&call(&mut client, "read-listed", &a, &data).await), "EACCES");
        assert_eq!(text(&call(&mut client, "read-listed", &format!("{inner}/c"), &data).await), "EACCES");
        let changed = call(&mut client, "change-listed", &a, &data).await;
        assert!(["EACCES", "EROFS"].contains(&text(&changed)), "{changed}");
        let file = call(&mut client, "list-listed", &a, &a).await;
        assert!(text(&file).contains("which is no directory, and `list` is for directories"), "{file}");
        client
    });
}

#[test]
fn what_lies_elsewhere_is_refused_before_there_is_a_cell() {
    let scratch = Scratch::new();
    let data = tree(&scratch);
    let book: Book = session(&setup(&data), |mut client| async move {
        let dotted = format!("{data}/../../etc/passwd");
        let linked = format!("{data}/away");
        for (granted, why) in [
            ("/etc/passwd", "which lies outside of"),
            (linked.as_str(), "which lies outside of"),
            (dotted.as_str(), "no path that can be granted"),
            ("etc/passwd", "is a relative path"),
        ] {
            let answer = call(&mut client, "read", "/etc/passwd", granted).await;
            assert_eq!(answer["result"]["isError"], true, "{answer}");
            assert!(text(&answer).contains(why), "{answer}");
        }
        // The same path where no grant sees it: the cell has its own, made file, and nothing of the host's.
        let own = call(&mut client, "read", "/etc/passwd", &format!("{data}/a")).await;
        assert_ne!(text(&own), fs::read_to_string("/etc/passwd").unwrap());
        client
    });
    assert_eq!(book.finished.iter().filter(|record| record["status"]["kind"] == "refused").count(), 4);
    assert!(!Path::new("/etc/passwd").metadata().unwrap().permissions().readonly());
}
