//! Every attack in cells that lack one layer: what still stops it is another one.
//!
//! A copy of this program stands where `toolcell run` would: it makes the plan of a cell in which the hostile server runs,
//! leaves the steps of one layer out, and launches the rest. Neighbours: `layers` has each layer alone; docs/attacks.md
//! says which attacks one layer stops by itself, and why. Never: leaves out what makes a step act on the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use toolcell::plan::Plan;
use toolcell::plan::step::{Namespace, Step};
use toolcell::sys::landlock;

use super::layers::is_mount;
use super::runner;
use super::scene::{Scene, deaf, floor, is_root, note};
use crate::selftest::table;

/// Names the layer to leave out, and the directory for the profile, in the environment of the copy.
const WITHOUT: &str = "TOOLCELL_TEST_WITHOUT";
const DIRECTORY: &str = "TOOLCELL_TEST_ATTACKED";

const LAYERS: [&str; 5] = ["namespaces", "root", "landlock", "seccomp", "capabilities"];

/// What is about the protocol and about limits that one thing counts, and what the end of a cell ends.
fn is_of_one_layer(row: &Value) -> bool {
    row["class"] == "Protocol" || row["class"] == "Resources" || row["attempt"] == "daemonise and stay"
}

#[test]
fn an_attack_is_stopped_without_any_one_layer_or_the_document_says_why_not() {
    if landlock::abi() < 6 {
        note("before ABI 6 Landlock holds neither signals nor abstract sockets");
        return;
    }
    let who = if is_root() { "root" } else { "user" };
    let text = fs::read_to_string(crate::project().join("docs/attacks.md")).unwrap();
    let rows = table(&text, "| attack | stopped only by | started by | because |");
    let told = |layer: &str| -> BTreeSet<String> {
        let here = |row: &&Vec<&str>| row[2] == layer && row[3].split(", ").any(|started| started == who);
        rows.iter().filter(here).map(|row| row[1].to_owned()).collect()
    };
    let bare = attacked(&[], &[]);
    for layer in LAYERS {
        let document = attacked_without(layer);
        let attacks = document["attacks"].as_array().unwrap();
        let escaped: BTreeSet<String> = attacks
            .iter()
            .filter(|row| !is_of_one_layer(row) && row["verdict"] != "BLOCKED" && row["verdict"] != "STOPPED")
            .map(|row| row["attempt"].as_str().unwrap().to_owned())
            .collect();
        let told = told(layer);
        let more: Vec<_> = escaped.difference(&told).collect();
        assert!(more.is_empty(), "without {layer}, started by {who}: {more:?}: {document:#}");
        // What a host refuses by itself, or a newer Landlock, is no mistake of the document's. A kernel in a virtual machine
        // has other settings and modules, of which a payload without privilege meets more than a bare process of root.
        if std::env::var_os("TOOLCELL_TEST_PATIENCE").is_some() {
            continue;
        }
        let fewer = told.difference(&escaped).filter(|name| !refused_anyway(layer, name, &bare));
        assert_eq!(fewer.collect::<Vec<_>>(), [""; 0], "stopped by another layer too, without {layer}");
    }
    for row in &rows {
        assert!(LAYERS.contains(&row[2]), "no layer `{}`", row[2]);
    }
}

/// Of one cell, in which the hostile server stays: what it does is not a call's, and goes past no supervisor.
#[test]
fn no_attack_escapes_from_the_cell_of_a_command() {
    let [option, floor] = floor();
    // The workspace, where it is started, and the project beside it.
    let exec = format!(
        r#"exec '{}' exec {option} {floor} --write "$PWD" --write "${{PWD%/*}}/project" -- "$@""#,
        crate::binary().display()
    );
    let document = attacked(&["--", "sh", "-c", &exec, "sh"], &[]);
    // A name that the host takes away while a cell is there is held no longer (SECURITY.md), and these attacks find it so.
    const GONE: [&str; 3] = ["make absent traps", "rename to absent traps", "put links for absent traps"];
    let rows = document["attacks"].as_array().unwrap();
    let (gone, rest): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| GONE.contains(&row["attempt"].as_str().unwrap()));
    assert_eq!(gone.len(), GONE.len());
    let made: Vec<_> = rest
        .into_iter()
        .filter(|row| !is_of_one_layer(row) && row["class"] != "Changes under review")
        .collect();
    let escaped: Vec<_> =
        made.iter().filter(|row| row["verdict"] != "BLOCKED" && row["verdict"] != "STOPPED").collect();
    assert!(escaped.is_empty(), "{escaped:#?}");
    assert!(made.len() > 100, "{made:#?}");
    for what in ["processes", "mounts", "cgroups", "files"] {
        assert_eq!(document["left"][what], serde_json::json!([]), "{what}");
    }
}

/// Does this host refuse it without a cell, or has it a Landlock that has learnt to?
fn refused_anyway(layer: &str, name: &str, bare: &Value) -> bool {
    const UDP: u32 = 10;
    let learnt = layer == "namespaces" && name.starts_with("call home") && landlock::abi() >= UDP;
    let rows = bare["attacks"].as_array().unwrap();
    learnt || rows.iter().any(|row| row["attempt"] == name && row["verdict"] != "ESCAPED")
}

/// The attacks from a cell that lacks this layer.
fn attacked_without(layer: &str) -> Value {
    let scene = Scene::new();
    let program = std::env::current_exe().unwrap();
    let this = ["--exact", "cell::attacks::serves_from_a_cell", "--test-threads=1", "--nocapture"];
    attacked(
        &[&["--", program.to_str().unwrap()], &this[..]].concat(),
        &[(WITHOUT, layer), (DIRECTORY, &scene.path(""))],
    )
}

/// The attacks from where this command puts them.
fn attacked(around: &[&str], environment: &[(&str, &str)]) -> Value {
    let output = Command::new(crate::binary())
        .args(["demo", "--without-cell", "--json"])
        .args(around)
        .envs(environment.iter().copied())
        // All come from one cell, whose own files in its /tmp must not lie where the host's do.
        .env("TMPDIR", "/var/tmp")
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Not a test of its own: does nothing unless `attacked_without` had this program started.
#[test]
fn serves_from_a_cell() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let layer = std::env::var(WITHOUT).unwrap();
    let workspace = std::env::current_dir().unwrap();
    // Whoever the payload is, the walls must stop it, and not the owner of a directory.
    fs::set_permissions(&workspace, fs::Permissions::from_mode(0o777)).unwrap();
    runner::serve(without(&layer, plan(&directory, &workspace)));
}

/// The whole plan.
fn plan(directory: &Path, workspace: &Path) -> Plan {
    let profile = directory.join("attacked.toml");
    let text = format!(
        "description = \"a test\"\nextends = \"default\"\nfloor = \"{}\"\nfilesystem.write = [{workspace:?}]\n",
        floor()[1]
    );
    fs::write(&profile, text).unwrap();
    let output = Command::new(crate::binary())
        .args(["profile", "explain", "--json"])
        .arg(&profile)
        .arg("--")
        .arg(crate::binary())
        .arg("hostile-server")
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same without the steps of one layer, and without those that look whether all layers are on. What the supervisor answers by
/// what it reads from memory is no layer.
fn without(layer: &str, mut plan: Plan) -> Plan {
    deaf(&mut plan);
    if layer == "root" {
        // What the plan itself makes is not there without it: the paths that remain are the host's own.
        let bound: BTreeSet<PathBuf> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Bind { source, target, .. } if source == target => Some(target.clone()),
                _ => None,
            })
            .collect();
        for step in &mut plan.steps {
            if let Step::Landlock { rules, .. } = step {
                rules.retain(|rule| bound.contains(&rule.path) && !rule.path.starts_with("/dev"));
            }
        }
    }
    plan.steps.retain(|step| {
        let of_layer = match layer {
            "namespaces" => matches!(
                step,
                Step::UnshareUser { .. }
                    | Step::ForbidUserNamespaces
                    | Step::LoopbackUp
                    | Step::SetHostname { .. }
            ),
            "root" => is_mount(step) || matches!(step, Step::MountProc | Step::ReserveName { .. }),
            "landlock" => matches!(step, Step::Landlock { .. }),
            "seccomp" => matches!(step, Step::Seccomp { .. }),
            "capabilities" => matches!(step, Step::DropCapabilities { .. }),
            other => panic!("no layer `{other}`"),
        };
        // A user may show processes only of a namespace of their own, and without /proc nobody sees which cgroup it is in.
        let shown = matches!(step, Step::MountProc | Step::CreateCgroup { .. } | Step::JoinCgroup { .. });
        let of_layer = of_layer || (layer == "namespaces" && !is_root() && shown);
        !of_layer && !matches!(step, Step::Verify { .. })
    });
    for step in &mut plan.steps {
        match step {
            // Mounts are the private root's, and a user must have a user namespace to make them.
            Step::Clone { namespaces } if layer == "namespaces" => {
                namespaces.retain(|namespace| matches!(namespace, Namespace::Mount | Namespace::User));
            }
            Step::Clone { namespaces } if layer == "root" => {
                namespaces.retain(|namespace| *namespace != Namespace::Mount);
            }
            // The bounding set is a matter of capabilities that only the user namespace gave.
            Step::DropCapabilities { bounding } if layer == "namespaces" => *bounding = false,
            Step::JoinCgroup { namespace } if layer == "namespaces" => *namespace = false,
            // The scratch directory is not there.
            Step::Exec { cwd, .. } if layer == "root" => *cwd = "/".into(),
            _ => {}
        }
    }
    plan
}
