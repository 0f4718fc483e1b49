use std::collections::BTreeMap; use std::path::*; use std::time::Duration;
use toolcell::{policy::*, host::{*, view}, plan::{build::*}, launch::spawn::*, watch::passthrough, sys::descriptor};
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let floor = if std::env::var("NOCG").is_ok() { Floor::NoCgroup } else { Floor::Full };
    let policy = Policy { name: "t".into(), description: "".into(), filesystem: Filesystem { read: vec![], write: std::env::var("W").map(|w| vec![PathRule{path:w.into(),why:"".into(),origin:"w".into(),optional:false}]).unwrap_or_default(), execute: vec![], deny: vec![], scratch: 64<<20 }, limits: Limits { memory: 512<<20, cpu: 1000, tasks: 64, time: Duration::from_secs(10), output: 64<<20, open_files: 1024, file_size: 256<<20 }, syscalls: Syscalls::default(), environment: Environment::default(), audit: Audit::default(), floor };
    let facts = Facts::gather();
    let need = |p: &str| runtime::Needed { path: p.into(), why: "x".into() };
    let mut v = vec![need("/usr"), need("/etc/ld.so.cache")]; if let Ok(x)=std::env::var("X"){ v.push(need(&x)); }
    let rt = view::of_runtime(&v).unwrap();
    let view = view::of_policy(&policy.filesystem).unwrap();
    let links: Vec<(PathBuf,PathBuf)> = [("/bin","usr/bin"),("/lib","usr/lib"),("/lib64","usr/lib64")].map(|(a,b)|(a.into(),b.into())).to_vec();
    let env = BTreeMap::new(); let cwd = PathBuf::from("/tmp"); let program = PathBuf::from(&args[0]);
    let plan = build(&Request { policy: &policy, facts: &facts, view: &view, runtime: &rt, hidden: &[], links: &links, program: &program, argv: &args, path: &["/usr/bin".into()], environment: &env, cwd: &cwd }).unwrap_or_else(|e| panic!("{e} {:?}", e.hint()));
    if std::env::var("SHOW").is_ok() { for s in &plan.steps { eprintln!("{}", s.name()); } }
    let prepared = Prepared::new(plan).unwrap();
    let (ir, iw) = descriptor::pipe().unwrap(); let (or, ow) = descriptor::pipe().unwrap(); let (er, ew) = descriptor::pipe().unwrap();
    let t = std::time::Instant::now();
    let started = match spawn(&prepared, Stdio { stdin: ir, stdout: ow, stderr: ew }, &toolcell::launch::cgroup::cell_name(0)) { Ok(s)=>s, Err(e)=> { eprintln!("ERR {e}: {} {:?}", e.errno, e.hint()); std::process::exit(122) } };
    let p = passthrough::pass(&started, passthrough::Ends { stdin: iw, stdout: or, stderr: er }, policy.limits.time, policy.limits.output).unwrap();
    let el = t.elapsed();
    if std::env::var("Q").is_err() { eprintln!("{:?} exit {:?} failed {:?} stopped {:?} receipt {:#?} cpu {:?}", el, p.exit, p.failed.map(|e| format!("{e} {}", e.errno)), p.stopped, p.receipt, p.cpu_us); }
    if let Some(c) = started.cgroup { eprint!("{}", c.remove().len()) }
}
