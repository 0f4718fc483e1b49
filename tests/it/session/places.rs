//! What a call's arguments grant, in cells that were there before the call. Never: waits for time where there is an event.

use std::fs;

use serde_json::Value;

use super::ahead::ready;
use super::grants::{call, setup, tree};
use super::spares::{all_stopped, built, stopped};
use super::world::{Client, Scratch, Setup, session, text};

fn with_spares(setup: Setup) -> Setup {
    Setup { options: ["--spares", "1"].map(str::to_owned).to_vec(), ..setup }
}

/// Of a call whose cell waited.
async fn in_waiting(client: &mut Client, tool: &str, path: &str, granted: &str) -> Value {
    let others = all_stopped(client);
    call(client, tool, granted, granted).await;
    // Of another tool one may wait still.
    while all_stopped(client).iter().all(|server| others.contains(server)) {
        tokio::task::yield_now().await;
    }
    call(client, tool, path, granted).await
}

#[test]
fn a_started_server_gets_the_file_that_its_call_names_and_nothing_else() {
    let scratch = Scratch::outside_of_scratch();
    let data = tree(&scratch);
    let inner = format!("{data}/inner/deep");
    fs::create_dir_all(&inner).unwrap();
    fs::write(format!("{inner}/c"), "three").unwrap();
    let (a, b) = (format!("{data}/a"), format!("{data}/b"));
    let book = session(&with_spares(setup(&data)), |mut client| async move {
        for (tool, path, granted, answer) in [
            ("read", a.as_str(), a.as_str(), "one"),
            ("read", &b, &a, "ENOENT"),
            ("read", &b, &b, "two"),
            ("read", &format!("{inner}/c"), &inner, "three"),
            ("list", &data, &a, "a"),
            ("list", &data, &data, "a away b inner"),
            ("change", &b, &a, "ENOENT"),
            ("change", &a, &a, "ok"),
            ("read", &a, &a, "more"),
        ] {
            assert_eq!(
                text(&in_waiting(&mut client, tool, path, granted).await),
                answer,
                "{tool} {path} {granted}"
            );
        }
        // Neither what is put in for reading nor the place itself can be changed.
        assert_eq!(text(&in_waiting(&mut client, "list-listed", &data, &data).await), "a away b inner");
        assert_eq!(text(&in_waiting(&mut client, "read-listed", &a, &data).await), "EACCES");
        let changed = in_waiting(&mut client, "change-listed", &a, &data).await;
        assert!(["EACCES", "EROFS"].contains(&text(&changed)), "{changed}");
        let made = in_waiting(&mut client, "change", &format!("{data}/new"), &a).await;
        assert!(["EACCES", "EROFS", "ENOENT"].contains(&text(&made)), "{made}");
        assert!(!fs::exists(format!("{data}/new")).unwrap());
        assert_eq!(fs::read_to_string(&b).unwrap(), "two");
        client
    });
    let cells = built(&book, "tools/call");
    assert!(cells.iter().skip(1).step_by(2).all(|cell| cell == "spare"), "{cells:?}");
    for record in &book.finished {
        assert_eq!(record["violations"], serde_json::json!([]), "{record}");
    }
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
        client
    });
    assert_eq!(built(&book, "tools/call"), ["on-demand", "ahead", "ahead"]);
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
