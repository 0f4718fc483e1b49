//! Writes what happens in a session to the audit log, and tells the guard of it.
//!
//! Neighbours: `run` makes it, `session` calls it. Never: keeps a call going whose record cannot be written.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::RawValue;

use crate::audit::{self, Ended, Key, Log, LogError, Signer, Started};
use crate::call::Call;
use crate::cli::ColorChoice;
use crate::diag;
use crate::guard::{Event, Guard};
use crate::outcome::Granted;
use crate::policy::Policy;
use crate::session::{Finished, Records};
use crate::text::chain;

/// What a session tells of its calls, on its way to the log and to the guard.
pub(super) struct Recording {
    log: Arc<Log>,
    signer: Signer,
    guard: Guard,
}

impl Recording {
    /// With a thread that signs; it is confined like the one that starts it.
    pub(super) fn new(log: Log, key: Option<Key>, guard: Guard, color: ColorChoice) -> io::Result<Self> {
        let log = Arc::new(log);
        let signer = Signer::start(Arc::clone(&log), key, move |error| {
            diag::warn(color, &format!("records are not signed or synced yet: {}", told(error)), None);
        })?;
        Ok(Self { log, signer, guard })
    }

    /// Writes that a call is about to start, and tells the guard if that cannot be written.
    fn begin(&self, call: &Call, record: &Started) -> io::Result<()> {
        let written = self.log.write(record).map(|()| self.signer.recorded());
        written.map_err(|error| {
            let why = told(&error);
            self.guard.ended(|| Event::unstarted(call, record, SystemTime::now(), &why));
            io::Error::other(why)
        })
    }

    /// Writes that a call has ended, and tells the guard, whether it could be written or not.
    fn end(&self, call: &Call, redact: &[String], finished: &Finished) -> io::Result<()> {
        let now = SystemTime::now();
        let record = audit::Finished::new(call, redact, ended(finished, now));
        let written = self.log.write_or_owe(&record).map(|()| self.signer.recorded());
        let unrecorded = written.err().map(|error| told(&error));
        self.guard.ended(|| Event::of(call, &record, now, unrecorded.clone()));
        unrecorded.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }
}

/// Why a record is not in the log, and what to do about it, in one line.
fn told(error: &LogError) -> String {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{}{hint}", chain(error))
}

/// Parameters of a call whose policy is not known are not written.
const EVERYTHING: &str = "";

fn ended(finished: &Finished, now: SystemTime) -> Ended {
    Ended {
        now,
        duration: finished.duration,
        status: finished.status.clone(),
        usage: finished.usage.clone(),
        violations: finished.violations.clone(),
        receipt: finished.receipt.clone(),
        stderr: finished.stderr.join("\n").into_bytes(),
        secrets: finished.secrets.clone(),
        changes: finished.changes.clone(),
        traffic: finished.traffic.clone(),
    }
}

impl Records for Recording {
    fn started(
        &self,
        call: &Call,
        policy: Option<&Policy>,
        params: Option<&RawValue>,
        granted: &[Granted],
    ) -> io::Result<()> {
        let all = [EVERYTHING.to_owned()];
        let redact = policy.map_or(all.as_slice(), |policy| &policy.audit.redact);
        let started = Started::new(call, params, redact, SystemTime::now());
        self.begin(call, &started.with_granted(granted, redact))
    }

    fn finished(&self, call: &Call, policy: Option<&Policy>, finished: &Finished) -> io::Result<()> {
        let all = [EVERYTHING.to_owned()];
        let redact = policy.map_or(all.as_slice(), |policy| &policy.audit.redact);
        self.end(call, redact, finished)
    }

    fn refused(&self, call: &Call, finished: &Finished) -> io::Result<()> {
        self.started(call, None, None, &[])?;
        // Names of tools and prompts are no data; what names a resource is.
        let all = [EVERYTHING.to_owned()];
        let redact =
            if matches!(call.method.as_str(), "tools/call" | "prompts/get") { &[][..] } else { &all };
        self.end(call, redact, finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_record_out_of_the_log_is_told_with_its_causes_and_what_to_do() {
        let full = LogError::Write { path: "/v/log".into(), source: io::ErrorKind::StorageFull.into() };
        assert_eq!(
            told(&full),
            "cannot write to the audit log `/v/log`: no storage space; make room, or move the log with `--audit FILE`: df '/v/log'"
        );
        let other = LogError::Lock { path: "/v/log".into(), source: io::Error::other("why") };
        assert_eq!(told(&other), "cannot lock the audit log `/v/log`: why");
    }
}
