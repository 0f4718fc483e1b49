//! The cells in which package managers run: no home, no secret, nothing to write but the directory that is filled, and no way out but
//! to the registry.
//!
//! Neighbours: `install` says what is run; `toolcell exec` makes the cell, as it would for a person. Never: gives a cell the person's
//! own settings, which may hold credentials.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::registry::Reach;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::policy::Floor;
use crate::policy::print::quote;

/// Variables that say which certificates are trusted.
const CERTIFICATES: [&str; 5] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT"];
/// Of what a package manager prints for toolcell to read.
const MOST: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot write `{}`", .0.display())]
    Profile(PathBuf, #[source] std::io::Error),
    #[error("cannot start the cell for `{0}`")]
    Start(String, #[source] std::io::Error),
    #[error("nothing was fetched: what keeps `{0}` from running in a cell is above")]
    Refused(String),
    #[error("`{program}` ended with {status} in its cell; what it said is above")]
    Ended { program: String, status: std::process::ExitStatus },
}

/// What the cells of one installation have in common.
#[derive(Debug)]
pub(super) struct Cells<'a> {
    /// toolcell itself.
    pub(super) program: &'a Path,
    /// A directory of toolcell's own.
    pub(super) work: &'a Path,
    /// The weakest isolation that is accepted.
    pub(super) floor: Floor,
    /// The log that has a record of each.
    pub(super) log: &'a Path,
}

/// One program in a cell of its own.
#[derive(Debug, Default)]
pub(super) struct Job<'a> {
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
    /// What it may write.
    pub(super) write: &'a [&'a Path],
    /// What it may read.
    pub(super) read: &'a [&'a Path],
    /// What it can reach.
    pub(super) reach: &'a [Reach],
    /// Where it starts.
    pub(super) directory: Option<&'a Path>,
    /// Variables.
    pub(super) environment: &'a [(&'a str, &'a str)],
    /// Nobody has to hear what it says, and it has a few seconds.
    pub(super) aside: bool,
}

impl Cells<'_> {
    /// Runs a program, and gives what it printed. Its stderr is the person's.
    pub(super) fn run(&self, job: &Job<'_>) -> Result<String, Failure> {
        let shown =
            job.command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |error: Failed| Failure::new(Ending::Other, error);
        let profile = self.work.join("profile.toml");
        let text = profile_of(job, &certificates());
        fs::write(&profile, text).map_err(|error| failed(Failed::Profile(profile.clone(), error)))?;
        let mut command = Command::new(self.program);
        command.arg("exec").arg("--profile").arg(&profile).arg("--floor").arg(self.floor.name());
        command.arg("--audit").arg(self.log);
        command.arg("--").args(&job.command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if job.aside { Stdio::null() } else { Stdio::inherit() });
        // What it fills lies in the store, in which a program of the store may write to nothing.
        command.env("XDG_DATA_HOME", self.work);
        command.current_dir(job.directory.unwrap_or(Path::new("/")));
        let not_started = |error| failed(Failed::Start(shown.clone(), error));
        let mut child = command.spawn().map_err(not_started)?;
        let mut printed = Vec::new();
        let read = child.stdout.take().map_or(Ok(0), |stdout| stdout.take(MOST).read_to_end(&mut printed));
        let status = child.wait().and_then(|status| read.map(|_length| status)).map_err(not_started)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        // With these `exec` has said itself what stands against it, and what to do.
        let own = Ending::OWN.into_iter().find(|ending| Some(ending.code()) == code && ending.code() > 2);
        if let Some(ending) = own {
            return Err(Failure::new(ending, Failed::Refused(shown)));
        }
        if !status.success() {
            let hint = "where it was refused a host that it needs, add `--net HOST:PORT` to `toolcell install`; what a \
                        registry asks a password for has to be installed by hand";
            return Err(failed(Failed::Ended { program: shown, status }).hint(Some(hint.to_owned())));
        }
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

/// The variables that are set, and the files that they name.
fn certificates() -> Vec<(&'static str, PathBuf)> {
    let set =
        CERTIFICATES.into_iter().filter_map(|name| Some((name, PathBuf::from(std::env::var_os(name)?))));
    set.filter(|(_, path)| path.is_absolute() && path.exists()).collect()
}

fn profile_of(job: &Job<'_>, certificates: &[(&'static str, PathBuf)]) -> String {
    let path = |path: &Path| quote(&path.to_string_lossy());
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let read = job.read.iter().copied().chain(certificates.iter().map(|(_, file)| file.as_path()));
    let read = list(read.map(path).collect());
    let write = list(job.write.iter().copied().map(path).collect());
    let pass = list(certificates.iter().map(|(name, _)| quote(name)).collect());
    let set: String =
        job.environment.iter().map(|(name, value)| format!("set.{name} = {}\n", quote(value))).collect();
    let allow = list(job.reach.iter().map(|reach| quote(&reach.destination.to_string())).collect());
    let mut private: Vec<String> =
        job.reach.iter().flat_map(|reach| &reach.private).map(|range| quote(range)).collect();
    private.sort();
    private.dedup();
    let private = list(private);
    let time = if job.aside { "20s" } else { "15m" };
    format!(
        "description = \"a package manager at work\"\nextends = \"default\"\n\n\
         [filesystem]\nread = {read}\nwrite = {write}\nscratch = \"1GiB\"\n\n\
         [environment]\npass = {pass}\n{set}\n\
         [network]\nallow = {allow}\nprivate = {private}\n\n\
         [limits]\nmemory = \"2GiB\"\ncpu = 8\ntasks = 512\ntime = \"{time}\"\nfile-size = \"1GiB\"\nopen-files = 4096\n"
    )
}
