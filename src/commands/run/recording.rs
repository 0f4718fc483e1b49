//! Writes what happens in a session to the audit log, and tells the guard of it.
//!
//! Neighbours: `run` makes it, `session` calls it. Never: keeps a call going whose record cannot be written.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::RawValue;

use crate::audit::{self, Ended, Key, Log, Signer, Started};
use crate::call::Call;
use crate::cli::ColorChoice;
use crate::diag;
use crate::guard::{Event, Guard};
use crate::outcome::Granted;
use crate::policy::Policy;
use crate::session::{Finished, Records};

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
            let cause =
                std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
            diag::warn(color, &format!("records are not signed or synced yet: {error}{cause}"), None);
        })?;
        Ok(Self { log, signer, guard })
    }

    /// Writes that a call is about to start, and tells the guard if that cannot be written.
    fn begin(&self, record: &Started) -> io::Result<()> {
        let written = self.write(record);
        if let Err(error) = &written {
            let why = error.to_string();
            self.guard.ended(|| Event::unstarted(&record.call, SystemTime::now(), &why));
        }
        written
    }

    /// Writes that a call has ended, and tells the guard, whether it could be written or not.
    fn end(&self, call: &Call, redact: &[String], finished: &Finished) -> io::Result<()> {
        let now = SystemTime::now();
        let record = audit::Finished::new(call, redact, ended(finished, now));
        let written =
            self.log.write_or_owe(&record).map_err(io::Error::other).map(|()| self.signer.recorded());
        let unrecorded = written.as_ref().err().map(ToString::to_string);
        self.guard.ended(|| Event::of(&record, now, unrecorded));
        written
    }

    fn write(&self, record: &impl serde::Serialize) -> io::Result<()> {
        self.log.write(record).map_err(io::Error::other)?;
        self.signer.recorded();
        Ok(())
    }
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
        self.begin(&started.with_granted(granted, redact))
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
