//! Stand-in: serves a plain process. Never: part of a release.

use std::sync::Arc;
use std::time::Duration;

use toolcell::outcome::Violation;
use toolcell::plan::Plan;
use toolcell::plan::step::Step;
use toolcell::policy::{Audit, Environment, Filesystem, Floor, Limits, Policy, Syscalls};
use toolcell::session::{Finished, Grant, Options, Profiles, Records};

struct Same(Grant);
impl Profiles for Same {
    fn grant(&self, _: &str, _: Option<&str>) -> Result<Grant, String> {
        Ok(self.0.clone())
    }
}
struct Quiet;
impl Records for Quiet {
    fn started(
        &self,
        _: &toolcell::call::Call,
        _: Option<&Policy>,
        _: Option<&serde_json::value::RawValue>,
    ) -> std::io::Result<()> {
        Ok(())
    }
    fn finished(&self, call: &toolcell::call::Call, finished: &Finished) -> std::io::Result<()> {
        use std::io::Write as _;
        let found: Vec<(&str, u64)> =
            finished.violations.iter().map(|v: &Violation| (v.operation.as_str(), v.count)).collect();
        writeln!(std::io::stderr(), "{} {:?} {:?} {found:?}", call.method, call.target, finished.status)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let program = argv.first().ok_or("no program")?.into();
    let step = Step::Exec { program, argv, env: vec![], cwd: "/".into() };
    let policy = Policy {
        name: "test".to_owned(),
        description: String::new(),
        filesystem: Filesystem { read: vec![], write: vec![], execute: vec![], deny: vec![], scratch: 0 },
        limits: Limits {
            memory: 1 << 29,
            cpu: 1000,
            tasks: 64,
            time: Duration::from_secs(30),
            output: 1 << 30,
            open_files: 64,
            file_size: 1 << 20,
        },
        syscalls: Syscalls::default(),
        environment: Environment::default(),
        audit: Audit::default(),
        floor: Floor::Landlock,
    };
    let grant = Grant {
        plan: Arc::new(Plan { floor: Floor::Landlock, steps: vec![step] }),
        policy: Arc::new(policy),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = Options {
            server: "s".into(),
            user: "u".into(),
            run: "r".into(),
            jobs: 2,
            launcher: toolcell::launch::supervisor::Launcher::default(),
            profiles: Box::new(Same(grant)),
            records: Box::new(Quiet),
            notice: Box::new(|_| {}),
        };
        toolcell::session::serve(options, toolcell::mcp::stdio::stdin()?, toolcell::mcp::stdio::stdout()?)
            .await?;
        Ok(())
    })
}
