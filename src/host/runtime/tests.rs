//! Finding runtimes in small trees that stand for a host.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use super::elf::sample;
use super::*;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A tree that is removed again.
struct Tree {
    root: PathBuf,
    world: World,
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            assert!(std::thread::panicking(), "the tree stays behind: {error}");
        }
    }
}

impl Tree {
    /// A host with merged `/usr`, a shell, `env`, node with npm, and a home directory.
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toolcell-runtime-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        let world = World {
            files: Files::below(&root),
            path: Some("/home/u/.local/bin:/usr/bin:/bin".into()),
            home: Some("/home/u".into()),
            cwd: "/home/u/p".into(),
            variables: BTreeMap::new(),
        };
        let tree = Self { root, world };
        for name in ["bin", "lib64"] {
            tree.link(&format!("/{name}"), &format!("usr/{name}"));
        }
        tree.file("/usr/lib64/ld-linux-x86-64.so.2", &sample::object(None, &[], None));
        tree.file("/usr/lib64/libc.so.6", &sample::object(None, &[], None));
        for name in ["sh", "env", "node", "python3.11"] {
            tree.dynamic(&format!("/usr/bin/{name}"), &["libc.so.6"], None);
        }
        tree.link("/usr/bin/python3", "python3.11");
        tree.program("/usr/lib/node_modules/npm/bin/npm-cli.js", "#!/usr/bin/env node\n");
        tree.link("/usr/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js");
        fs::create_dir_all(tree.at("/home/u/p")).unwrap();
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn program(&self, path: &str, text: &str) {
        self.file(path, text.as_bytes());
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn dynamic(&self, path: &str, needed: &[&str], runpath: Option<&str>) {
        self.file(path, &sample::object(Some(LOADER), needed, runpath));
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A virtual environment whose base is `base/bin/python3.11`.
    fn environment(&self, root: &str, base: &str) {
        self.file(&format!("{root}/pyvenv.cfg"), format!("home = {base}/bin\nversion = 3.11\n").as_bytes());
        self.link(&format!("{root}/bin/python"), &format!("{base}/bin/python3.11"));
        self.file(&format!("{root}/lib/python3.11/site-packages/x.py"), b"");
    }

    fn python(&self, root: &str) {
        self.dynamic(&format!("{root}/bin/python3.11"), &["libc.so.6"], None);
        self.link(&format!("{root}/bin/python3"), "python3.11");
        self.file(&format!("{root}/lib/python3.11/os.py"), b"");
    }

    fn try_find(&self, line: &str) -> Result<Runtime, NotFound> {
        // The tests change the tree between searches.
        self.world.files.forget();
        find(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), &self.world)
    }

    fn find(&self, line: &str) -> Runtime {
        let runtime = self.try_find(line).unwrap();
        for needed in &runtime.view {
            assert!(
                needed.path.is_absolute() && !Path::new("/home/u").starts_with(&needed.path),
                "{needed:?}"
            );
        }
        runtime
    }
}

/// The paths of a list without those of the system.
fn own(list: &[Needed]) -> Vec<&str> {
    let system = ["/usr", "/etc"];
    let all = list.iter().map(|needed| needed.path.to_str().unwrap());
    all.filter(|path| !system.iter().any(|top| path.starts_with(top))).collect()
}

fn own_links(runtime: &Runtime) -> Vec<(&str, &str)> {
    let all = runtime.links.iter().map(|(path, target)| (path.to_str().unwrap(), target.to_str().unwrap()));
    all.filter(|(_, target)| !target.starts_with("usr/")).collect()
}

#[test]
fn a_missing_program_is_not_one_without_permission() {
    let tree = Tree::new();
    let missing = tree.try_find("nothing").unwrap_err();
    assert!(matches!(&missing, NotFound::Missing { searched, .. } if searched.len() == 3));
    assert_eq!(missing.hint().as_deref(), Some("searched `/home/u/.local/bin`, `/usr/bin`, `/bin`"));
    assert!(matches!(tree.try_find("./nothing"), Err(NotFound::Missing { .. })));
    assert!(matches!(tree.try_find(""), Err(NotFound::Missing { .. })));
    tree.file("/usr/bin/data", b"#!/bin/sh\n");
    let denied = tree.try_find("data").unwrap_err();
    assert_eq!(denied.to_string(), "cannot execute `/usr/bin/data`: it has no execute permission");
    assert_eq!(denied.hint().as_deref(), Some("make it executable: chmod +x '/usr/bin/data'"));
    tree.program("/usr/bin/text", "hello\n");
    assert!(matches!(tree.try_find("text"), Err(NotFound::NotExecutable { .. })));
    assert!(matches!(tree.try_find("/usr"), Err(NotFound::NotExecutable { .. })));
}

#[test]
fn a_dynamic_program_needs_the_system_and_a_static_one_only_itself() {
    let tree = Tree::new();
    let shell = tree.find("sh -c true");
    assert_eq!(shell.program, Path::new("/usr/bin/sh"));
    assert_eq!(shell.argv, ["sh", "-c", "true"]);
    assert_eq!(shell.view.iter().map(|n| n.path.as_path()).collect::<Vec<_>>(), [Path::new("/usr")]);
    assert_eq!(shell.links, [("/bin".into(), "usr/bin".into()), ("/lib64".into(), "usr/lib64".into())]);
    assert_eq!(shell.path, [Path::new("/usr/bin")]);

    tree.file("/home/u/go/bin/server", &sample::object(None, &[], None));
    fs::set_permissions(tree.at("/home/u/go/bin/server"), fs::Permissions::from_mode(0o755)).unwrap();
    let server = tree.find("/home/u/go/bin/server --x");
    assert_eq!(own(&server.view), ["/home/u/go/bin/server"]);
    assert_eq!((server.view.len(), server.links.len()), (1, 0));
}

#[test]
fn a_host_with_separate_bin_and_lib_shows_those() {
    let tree = Tree::new();
    fs::remove_file(tree.at("/bin")).unwrap();
    tree.dynamic("/bin/tool", &["libc.so.6"], None);
    let runtime = tree.find("tool");
    assert_eq!(own(&runtime.view), ["/bin"]);
    assert_eq!(runtime.path, [Path::new("/usr/bin"), Path::new("/bin")]);
}

#[test]
fn a_virtual_environment_is_run_by_its_own_path_and_brings_its_base() {
    let tree = Tree::new();
    tree.python("/home/u/.pyenv/versions/3.11.7");
    tree.link("/home/u/.pyenv/versions/3.11", "3.11.7");
    tree.environment("/home/u/p/.venv", "/home/u/.pyenv/versions/3.11");
    let runtime = tree.find(".venv/bin/python -m server");
    assert_eq!(runtime.program, Path::new("/home/u/p/.venv/bin/python"));
    assert_eq!(runtime.argv.first().unwrap(), "/home/u/p/.venv/bin/python");
    assert_eq!(own(&runtime.view), ["/home/u/.pyenv/versions/3.11.7", "/home/u/p/.venv"]);
    assert_eq!(own_links(&runtime), [("/home/u/.pyenv/versions/3.11", "3.11.7")]);
    assert_eq!(runtime.path, [Path::new("/usr/bin"), Path::new("/home/u/p/.venv/bin")]);
}

#[test]
fn a_tool_installed_by_uv_is_followed_from_its_link_to_the_managed_python() {
    let tree = Tree::new();
    let data = "/home/u/.local/share/uv";
    tree.python(&format!("{data}/python/cpython-3.11"));
    tree.environment(&format!("{data}/tools/time"), &format!("{data}/python/cpython-3.11"));
    tree.program(&format!("{data}/tools/time/bin/mcp-time"), &format!("#!{data}/tools/time/bin/python\n"));
    tree.link("/home/u/.local/bin/mcp-time", "../share/uv/tools/time/bin/mcp-time");
    let runtime = tree.find("mcp-time");
    assert_eq!(own(&runtime.view), [format!("{data}/python/cpython-3.11"), format!("{data}/tools/time")]);
    assert_eq!(own_links(&runtime), [("/home/u/.local/bin/mcp-time", "../share/uv/tools/time/bin/mcp-time")]);
    assert_eq!(runtime.path.first().unwrap(), Path::new("/home/u/.local/bin"));
}

#[test]
fn a_script_with_a_shell_in_front_of_its_long_interpreter_is_followed() {
    let tree = Tree::new();
    tree.environment("/home/u/v", "/usr");
    let text = "#!/bin/sh\n'''exec' \"/home/u/v/bin/python\" \"$0\" \"$@\"\n' '''\n";
    tree.program("/home/u/tools/bin/x", text);
    let runtime = tree.find("/home/u/tools/bin/x");
    assert_eq!(own(&runtime.view), ["/home/u/tools/bin/x", "/home/u/v"]);
}

#[test]
fn packages_in_editable_form_are_pointed_out_and_the_users_own_are_shown() {
    let tree = Tree::new();
    tree.environment("/home/u/v", "/usr");
    let packages = "/home/u/v/lib/python3.11/site-packages";
    tree.file("/home/u/src/a/x.py", b"");
    tree.file("/home/u/src/b/x.py", b"");
    tree.file(
        &format!("{packages}/a-1.dist-info/direct_url.json"),
        br#"{"url":"file:///home/u/src/a","dir_info":{"editable":true}}"#,
    );
    tree.file(&format!("{packages}/b.pth"), b"/home/u/src/b\n/nowhere\nimport os\n");
    let runtime = tree.find("/home/u/v/bin/python");
    assert_eq!(own(&runtime.view), ["/home/u/v"]);
    assert_eq!(runtime.hints.len(), 2);
    assert!(runtime.hints.concat().contains("`--read /home/u/src/a`"), "{:?}", runtime.hints);
    assert!(runtime.hints.concat().contains("`--read /home/u/src/b`"), "{:?}", runtime.hints);

    tree.file("/home/u/.local/lib/python3.11/site-packages/x.py", b"");
    let runtime = tree.find("python3 -m x");
    assert_eq!(own(&runtime.view), ["/home/u/.local/lib/python3.11/site-packages"]);
    assert_eq!(runtime.environment.get("PYTHONUSERBASE").unwrap(), "/home/u/.local");
}

#[test]
fn a_file_cannot_choose_what_its_cell_sees() {
    let tree = Tree::new();
    tree.file("/home/u/private/letter.js", b"");
    tree.file("/home/u/private/package.json", b"");
    tree.program("/home/u/private/deploy.sh", "#!/bin/sh\n");
    tree.dynamic("/home/u/private/bin/tool", &[], None);
    tree.file("/home/u/private/lib/x", b"");
    let private = |runtime: &Runtime| -> Vec<String> {
        own(&runtime.view).into_iter().filter(|path| path.contains("private")).map(str::to_owned).collect()
    };
    for first_line in [
        "#!/usr/bin/env -S node --import /home/u/private/letter.js",
        "#!/usr/bin/env -S node /home/u/private/letter.js",
        "#!/usr/bin/env -S sh -c 'exec node /home/u/private/letter.js'",
        "#!/usr/bin/node --env-file=/home/u/private/letter.js",
        "#!/bin/sh\nexec node /home/u/private/letter.js",
        "#!/bin/sh\nexec /home/u/private/deploy.sh",
        "#!/bin/sh\nexec env X=1 /home/u/private/deploy.sh",
        "#!/bin/sh\nexec python3 /home/u/private",
    ] {
        tree.program("/home/u/srv/bin/srv", first_line);
        let runtime = tree.find("/home/u/srv/bin/srv");
        assert_eq!(private(&runtime), Vec::<String>::new(), "{first_line}");
        assert!(!runtime.hints.is_empty(), "{first_line}");
    }
    tree.program("/home/u/srv/bin/srv", "#!/home/u/private/deploy.sh\n");
    assert!(matches!(tree.try_find("/home/u/srv/bin/srv"), Err(NotFound::Unsuitable { .. })));
    tree.program("/home/u/srv/bin/srv", "#!/home/u/private/bin/tool\n");
    assert_eq!(private(&tree.find("/home/u/srv/bin/srv")), ["/home/u/private/bin/tool"]);

    tree.dynamic("/home/u/srv/bin/elf", &["letter.js", "libc.so.6"], Some("/home/u/private"));
    assert_eq!(private(&tree.find("/home/u/srv/bin/elf")), Vec::<String>::new());
    tree.file("/home/u/srv/bin/elf", &sample::object(Some("/home/u/private/letter.js"), &[], None));
    assert!(matches!(tree.try_find("/home/u/srv/bin/elf"), Err(NotFound::NotExecutable { .. })));
}

#[test]
fn a_shim_of_pyenv_leads_to_the_version_that_it_would_run() {
    let mut tree = Tree::new();
    let root = "/home/u/.pyenv";
    tree.world.path = Some(format!("{root}/shims:/usr/bin"));
    tree.python(&format!("{root}/versions/3.11.7"));
    tree.python(&format!("{root}/versions/3.9.1"));
    tree.program(&format!("{root}/shims/python3"), "#!/usr/bin/env bash\nexec pyenv exec python3\n");
    tree.file(&format!("{root}/version"), b"3.9.1\n");
    let global = tree.find("python3");
    assert_eq!(own(&global.view), [format!("{root}/versions/3.9.1")]);
    assert_eq!(global.path.first().unwrap(), Path::new("/home/u/.pyenv/versions/3.9.1/bin"));

    tree.file("/home/u/p/.python-version", b"3.11\n");
    let local = tree.find("python3");
    assert_eq!(local.program, Path::new("/home/u/.pyenv/versions/3.11.7/bin/python3"));

    tree.program("/home/u/p/bin/x", &format!("#!{root}/shims/python3\n"));
    let stand_in = format!("{root}/versions/3.11.7/bin/python3");
    assert_eq!(
        own_links(&tree.find("bin/x")),
        [(format!("{root}/shims/python3").as_str(), stand_in.as_str())]
    );

    tree.world.variables.insert("PYENV_VERSION".into(), "system".into());
    assert_eq!(tree.find("python3").program, Path::new("/usr/bin/python3"));
    tree.world.variables.insert("PYENV_VERSION".into(), "../../..".into());
    let unknown = tree.try_find("python3").unwrap_err();
    assert!(unknown.hint().unwrap().contains("/home/u/.pyenv/versions"), "{unknown}");
}

#[test]
fn shims_of_volta_asdf_mise_and_rustup_lead_to_their_programs() {
    let mut tree = Tree::new();
    tree.program("/home/u/.volta/bin/volta-shim", "");
    tree.link("/home/u/.volta/bin/node", "volta-shim");
    tree.file("/home/u/.volta/tools/user/platform.json", br#"{"node":{"runtime":"20.1.0"}}"#);
    tree.dynamic("/home/u/.volta/tools/image/node/20.1.0/bin/node", &[], None);
    assert_eq!(
        own(&tree.find("/home/u/.volta/bin/node").view),
        ["/home/u/.volta/tools/image/node/20.1.0/bin/node"]
    );

    tree.program(
        "/home/u/.asdf/shims/node",
        "#!/bin/sh\n# asdf-plugin: nodejs 18.0.0\nexec asdf exec node\n",
    );
    tree.dynamic("/home/u/.asdf/installs/nodejs/18.0.0/bin/node", &[], None);
    assert_eq!(
        own(&tree.find("/home/u/.asdf/shims/node").view),
        ["/home/u/.asdf/installs/nodejs/18.0.0/bin/node"]
    );

    let mise = "/home/u/.local/share/mise";
    tree.program(&format!("{mise}/shims/node"), "");
    tree.dynamic(&format!("{mise}/installs/node/22.3.0/bin/node"), &[], None);
    assert!(tree.try_find(&format!("{mise}/shims/node")).is_err());
    tree.file("/home/u/p/mise.toml", b"[tools]\nnode = \"22\"\n");
    let program = tree.find(&format!("{mise}/shims/node")).program;
    assert_eq!(program, Path::new("/home/u/.local/share/mise/installs/node/22.3.0/bin/node"));

    tree.program("/home/u/.cargo/bin/rustup", "");
    tree.link("/home/u/.cargo/bin/cargo", "rustup");
    tree.file("/home/u/.rustup/settings.toml", b"default_toolchain = \"stable-x\"\n");
    tree.dynamic("/home/u/.rustup/toolchains/stable-x/bin/cargo", &[], None);
    tree.world.path = Some("/home/u/.cargo/bin".into());
    assert_eq!(
        tree.find("cargo").path.first().unwrap(),
        Path::new("/home/u/.rustup/toolchains/stable-x/bin")
    );
}

#[test]
fn a_package_needs_its_node_modules_and_not_the_project() {
    let tree = Tree::new();
    tree.program("/home/u/p/node_modules/pkg/dist/index.js", "#!/usr/bin/env node\n");
    tree.link("/home/u/p/node_modules/.bin/x", "../pkg/dist/index.js");
    tree.file("/home/u/p/secret.txt", b"");
    tree.file("/home/u/other/lib/package.json", b"{}");
    tree.link("/home/u/p/node_modules/@scope/lib", "../../../other/lib");
    let runtime = tree.find("node_modules/.bin/x");
    assert_eq!(own(&runtime.view), ["/home/u/other/lib", "/home/u/p/node_modules"]);
    assert_eq!(runtime.program, Path::new("/home/u/p/node_modules/.bin/x"));
}

#[test]
fn a_package_does_not_choose_an_installation_of_python_to_be_shown() {
    let tree = Tree::new();
    tree.python("/home/u/other");
    tree.environment("/home/u/real", "/home/u/other");
    tree.program("/home/u/p/node_modules/pkg/bin/x", "#!/usr/bin/env node\n");
    tree.link("/home/u/p/node_modules/.bin/x", "../pkg/bin/x");
    tree.link("/home/u/bin", "p/node_modules/pkg/bin");
    for place in ["pkg", "pkg/bin", "", ".bin"] {
        let settings = format!("/home/u/p/node_modules/{place}/pyvenv.cfg");
        tree.file(&settings, b"home = /home/u/other/bin\n");
        for line in ["node_modules/.bin/x", "node node_modules/pkg/bin/x", "/home/u/bin/x"] {
            assert_eq!(own(&tree.find(line).view), ["/home/u/p/node_modules"], "{place} {line}");
        }
        fs::remove_file(tree.at(&settings)).unwrap();
        tree.link(&settings, "/home/u/real/pyvenv.cfg");
        assert_eq!(own(&tree.find("node_modules/.bin/x").view), ["/home/u/p/node_modules"], "{place}");
        fs::remove_file(tree.at(&settings)).unwrap();
    }
}

#[test]
fn a_global_package_under_a_version_manager_hides_its_npm() {
    let mut tree = Tree::new();
    let root = "/home/u/.nvm/versions/node/v22";
    tree.world.path = Some(format!("{root}/bin:/usr/bin"));
    tree.dynamic(&format!("{root}/bin/node"), &["libc.so.6"], None);
    tree.program(&format!("{root}/lib/node_modules/npm/bin/npm-cli.js"), "#!/usr/bin/env node\n");
    tree.link(&format!("{root}/bin/npm"), "../lib/node_modules/npm/bin/npm-cli.js");
    tree.program(&format!("{root}/lib/node_modules/@s/srv/index.js"), "#!/usr/bin/env node\n");
    tree.link(&format!("{root}/bin/srv"), "../lib/node_modules/@s/srv/index.js");
    let runtime = tree.find("srv");
    assert_eq!(own(&runtime.view), [format!("{root}/bin/node"), format!("{root}/lib/node_modules")]);
    assert_eq!(own_links(&runtime).len(), 1);
    assert_eq!(own(&runtime.hide), [format!("{root}/lib/node_modules/npm")]);
    assert!(runtime.hide.iter().any(|hidden| hidden.path == Path::new("/usr/lib/node_modules/npm")));
    assert_eq!(own(&tree.find("npm ls").hide), Vec::<&str>::new());
}

#[test]
fn a_script_brings_its_package_without_the_secrets_beside_it() {
    let tree = Tree::new();
    for name in ["package.json", "dist/server.js", ".env", ".git/config", "node_modules/a/index.js"] {
        tree.file(&format!("/home/u/p/{name}"), b"");
    }
    let runtime = tree.find("node dist/server.js");
    assert_eq!(own(&runtime.view), ["/home/u/p"]);
    assert_eq!(own(&runtime.hide), ["/home/u/p/.env", "/home/u/p/.git"]);
    assert_eq!(runtime.cwd.as_deref(), Some(Path::new("/home/u/p")));
    let with_settings = tree.find("node --env-file=.env /home/u/p/dist/server");
    assert_eq!(own(&with_settings.hide), ["/home/u/p/.git"]);
}

#[test]
fn a_script_in_a_shared_directory_comes_alone_and_with_a_hint() {
    let tree = Tree::new();
    for script in ["/home/u/s.py", "/tmp/s.py", "/home/u/Downloads/s.py"] {
        tree.file(script, b"");
        let runtime = tree.find(&format!("python3 {script}"));
        assert_eq!(own(&runtime.view), [script]);
        assert_eq!(runtime.hints.len(), 1, "{:?}", runtime.hints);
    }
    tree.file("/home/u/.ssh/s.py", b"");
    assert_eq!(own(&tree.find("python3 /home/u/.ssh/s.py").view), Vec::<&str>::new());
    tree.file("/home/u/x/s.py", b"");
    assert_eq!(own(&tree.find("python3 /home/u/x/s.py").view), ["/home/u/x"]);
}

#[test]
fn wrapper_scripts_and_shell_lines_are_followed() {
    let tree = Tree::new();
    tree.file("/home/u/srv/main.js", b"");
    tree.program("/home/u/.local/bin/srv", "#!/bin/sh\nexec node \"$HOME/srv/main.js\" \"$@\"\n");
    let wrapped = tree.find("srv");
    assert_eq!(own(&wrapped.view), ["/home/u/.local/bin/srv"]);
    assert!(wrapped.hints.concat().contains("`--read /home/u/srv/main.js`"), "{:?}", wrapped.hints);
    tree.program("/home/u/srv/run.sh", "#!/bin/sh\nD=$(dirname \"$0\")\nexec node \"$D/main.js\"\n");
    let beside = tree.find("/home/u/srv/run.sh");
    assert_eq!((own(&beside.view), beside.hints.len()), (vec!["/home/u/srv"], 0));
    let line = ["sh", "-c", "X=1 exec node /home/u/srv/main.js"].map(str::to_owned);
    assert_eq!(own(&find(&line, &tree.world).unwrap().view), ["/home/u/srv"]);
    assert_eq!(own(&tree.find("env X=1 node /home/u/srv/main.js").view), ["/home/u/srv"]);
    let refused = ["sh", "-c", "npx thing"].map(str::to_owned);
    tree.link("/usr/bin/npx", "../lib/node_modules/npm/bin/npm-cli.js");
    tree.world.files.forget();
    assert!(find(&refused, &tree.world).unwrap().hints.concat().contains("`npx PACKAGE`"));
}

#[test]
fn loops_end_in_an_error() {
    let tree = Tree::new();
    tree.program("/usr/bin/a", "#!/usr/bin/b\n");
    tree.program("/usr/bin/b", "#!/usr/bin/a\n");
    let endless = tree.try_find("a").unwrap_err().to_string();
    assert!(endless.ends_with("its interpreters form a loop"), "{endless}");
    tree.program("/usr/bin/c", "#!/bin/sh\nexec c\nexec c\nexec c\n");
    assert_eq!(tree.find("c").program, Path::new("/usr/bin/c"));
    tree.link("/usr/bin/d", "e");
    tree.link("/usr/bin/e", "d");
    assert!(
        matches!(tree.try_find("/usr/bin/d"), Err(NotFound::NotExecutable { reason, .. }) if reason.contains("ELOOP"))
    );
    tree.program("/usr/bin/f", "#!/nowhere/x\n");
    let broken = tree.try_find("f").unwrap_err().to_string();
    assert_eq!(broken, "cannot execute `/usr/bin/f`: its interpreter `/nowhere/x` does not exist");
}

#[test]
fn libraries_beside_a_program_are_shown_and_missing_ones_named() {
    let tree = Tree::new();
    tree.dynamic("/opt/app/x/prog", &["liba.so", "libc.so.6", "libgone.so"], Some("$ORIGIN/../lib"));
    tree.file("/opt/app/lib/liba.so", &sample::object(None, &["libb.so"], Some("${ORIGIN}/../more")));
    tree.file("/opt/app/more/libb.so", &sample::object(None, &["liba.so"], Some("$ORIGIN/../lib")));
    let runtime = tree.find("/opt/app/x/prog");
    assert_eq!(own(&runtime.view), ["/opt/app/lib", "/opt/app/more/libb.so", "/opt/app/x/prog"]);
    assert!(runtime.hints.concat().contains("`libgone.so`"), "{:?}", runtime.hints);
}

#[test]
fn an_installation_of_its_own_is_shown_whole_and_a_shared_prefix_is_not() {
    let tree = Tree::new();
    for path in ["/home/u/tool-1/bin/tool", "/home/u/.local/bin/tool", "/home/u/.cargo/bin/tool"] {
        tree.dynamic(path, &[], None);
    }
    for path in ["/home/u/tool-1/lib/x", "/home/u/.local/lib/x", "/home/u/.cargo/lib/x"] {
        tree.file(path, b"");
    }
    assert_eq!(own(&tree.find("/home/u/tool-1/bin/tool").view), ["/home/u/tool-1"]);
    assert_eq!(own(&tree.find("tool").view), ["/home/u/.local/bin/tool"]);
    assert_eq!(own(&tree.find("/home/u/.cargo/bin/tool").view), ["/home/u/.cargo/bin/tool"]);
}

#[test]
fn programs_that_fetch_others_are_refused_with_what_to_do() {
    let tree = Tree::new();
    for name in ["npx", "uvx", "uv", "pipx"] {
        tree.program(&format!("/usr/bin/{name}"), "#!/bin/sh\n");
    }
    let hint = |line: &str| tree.try_find(line).unwrap_err().hint().unwrap();
    for line in ["env npx -y @a/srv /data", "npm --silent exec srv"] {
        assert!(hint(line).contains("`npx PACKAGE`"), "{line}");
    }
    for line in ["uvx --from pkg srv", "uv --directory /x tool run srv@1", "pipx run srv"] {
        assert!(hint(line).contains("`uvx PACKAGE`"), "{line}");
    }
    assert!(tree.try_find("uv tool list").is_ok());
    assert!(hint("uv --directory /home/u/p run srv").contains("`uv sync`"));
    tree.environment("/home/u/p/.venv", "/usr");
    tree.program("/home/u/p/.venv/bin/srv", "#!/home/u/p/.venv/bin/python\n");
    assert!(hint("uv --directory /home/u/p run srv").ends_with("`/home/u/p/.venv/bin/srv`"));
    assert!(hint("uv run server.py").ends_with("`/home/u/p/.venv/bin/python`"));
}

#[test]
fn arguments_that_the_cell_will_not_have_are_pointed_out() {
    let tree = Tree::new();
    tree.file("/home/u/data/a b", b"");
    tree.file("/home/u/p/in/x", b"");
    let argv = [
        "srv",
        "--repo=/home/u/data",
        "file:///home/u/data/a%20b",
        "in/x",
        "in",
        "../data",
        "~/data",
        "/usr/x",
        "/nowhere",
        "/",
        "word",
        "-v",
    ];
    let remarks =
        unseen_arguments(&argv.map(str::to_owned), &["/usr".into(), "/home/u/p/in".into()], &tree.world);
    assert_eq!(
        remarks,
        [
            "`/home/u/data` exists on the host but not in the cell: add `--read /home/u/data` or `--write /home/u/data`",
            "`/home/u/data/a b` exists on the host but not in the cell: add `--read /home/u/data/a b` or `--write /home/u/data/a b`",
        ]
    );
}
