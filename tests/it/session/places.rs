//! What a call's arguments grant, in cells that were there before the call. Never: waits for time where there is an event.

use std::fs;

use super::ahead::ready;
use super::grants::{call, setup, tree};
use super::spares::{built, stopped};
use super::world::{Scratch, Setup, session, text};

fn with_spares(setup: Setup) -> Setup {
    Setup { options: ["--spares", "1"].map(str::to_owned).to_vec(), ..setup }
}

#[test]
fn a_started_server_gets_the_file_that_its_call_names_and_nothing_else() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let inner = format!("{data}/inner/deep");
    fs::create_dir_all(&inner).unwrap();
    fs::write(format!("{inner}/c"), "three").unwrap();
    let (a, b, c, new) =
        (format!("{data}/a"), format!("{data}/b"), format!("{inner}/c"), format!("{data}/new"));
    // A session each, in which no server of another tool waits.
    for (tool, path, granted, answers) in [
        ("read", &a, &a, ["one"].as_slice()),
        ("read", &b, &a, &["ENOENT"]),
        ("read", &b, &b, &["two"]),
        ("read", &c, &inner, &["three"]),
        ("list", &data, &a, &["a"]),
        ("list", &data, &data, &["a away b inner"]),
        ("change", &b, &a, &["ENOENT"]),
        ("change", &a, &a, &["ok"]),
        ("read", &a, &a, &["more"]),
        ("list-listed", &data, &data, &["a away b inner"]),
        ("read-listed", &b, &data, &["EACCES"]),
        // Neither what is put in for reading nor the place itself can be changed.
        ("change-listed", &b, &data, &["EACCES", "EROFS"]),
        ("append", &new, &a, &["EACCES", "EROFS", "ENOENT"]),
    ] {
        let (path, granted) = (path.clone(), granted.clone());
        let book = session(&with_spares(setup(&data)), |mut client| async move {
            call(&mut client, tool, &granted, &granted).await;
            stopped(&client).await;
            let answer = call(&mut client, tool, &path, &granted).await;
            assert!(answers.contains(&text(&answer)), "{tool} {path} {granted}: {answer}");
            client
        });
        assert_eq!(built(&book, "tools/call"), ["on-demand", "spare"], "{tool}");
        for record in &book.finished {
            let all = record["violations"].as_array().unwrap();
            assert!(all.iter().all(crate::host::is_of_its_slowness), "{record}");
        }
    }
    assert!(!fs::exists(new).unwrap());
    assert_eq!(fs::read_to_string(b).unwrap(), "two");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("toolcell-session-"));
}

#[test]
fn a_cell_that_waits_without_a_server_gets_it_too() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let (a, b) = (format!("{data}/a"), format!("{data}/b"));
    let book = session(&setup(&data), |mut client| async move {
        assert_eq!(text(&call(&mut client, "read", &a, &a).await), "one");
        ready(&client, 1).await;
        assert_eq!(text(&call(&mut client, "read", &a, &b).await), "ENOENT");
        ready(&client, 2).await;
        assert_eq!(text(&call(&mut client, "read", &b, &b).await), "two");
        // One that waits is for every tool that grants the same.
        ready(&client, 3).await;
        assert_eq!(text(&call(&mut client, "list", &data, &a).await), "a");
        client
    });
    assert_eq!(built(&book, "tools/call"), ["on-demand", "ahead", "ahead", "ahead"]);
}

/// What has become a link, or is not there any more, is not mounted by whatever its name leads to.
#[test]
fn what_is_put_in_is_looked_at_when_it_is() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let (a, away) = (format!("{data}/a"), format!("{data}/away"));
    session(&with_spares(setup(&data)), |mut client| async move {
        call(&mut client, "read", &a, &a).await;
        stopped(&client).await;
        fs::rename(&away, &a).unwrap();
        let refused = call(&mut client, "read", &a, &a).await;
        assert!(text(&refused).contains("which lies outside of"), "{refused}");
        fs::remove_file(&a).unwrap();
        let refused = call(&mut client, "read", &a, &a).await;
        assert!(text(&refused).contains("cannot be used"), "{refused}");
        fs::write(&a, "new").unwrap();
        assert_eq!(text(&call(&mut client, "read", &a, &a).await), "new");
        client
    });
}
