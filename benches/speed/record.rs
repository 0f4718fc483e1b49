//! What a record costs the call that it is about, with the thread that signs and syncs at work behind it.
//!
//! Neighbours: `main` has the row among the others. Never: times the making of what is recorded.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::value::RawValue;
use toolcell::audit::{Key, Log, Signer, Started};
use toolcell::call::Call;
use toolcell::sys::identity;

use crate::measure::{self, Result, Row, Times};

/// Enough for several checkpoints.
const RECORDS: usize = 5_000;
/// What the path of a call may wait for it.
const LIMIT_US: u64 = 20;

/// The median of a usual record: made, chained, appended.
pub(crate) fn row() -> Result<Row> {
    let directory = std::env::temp_dir().join(format!("toolcell-bench-record-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let measured = measure(&directory);
    fs::remove_dir_all(&directory)?;
    let median = u64::try_from(measured?.median().as_nanos().div_ceil(1_000))?;
    Ok(measure::amount("appending a record, behind it signing and syncing", median, LIMIT_US, "µs"))
}

fn measure(directory: &std::path::Path) -> Result<Times> {
    let owner = identity::effective().0;
    let log = Arc::new(Log::open(&directory.join("log"), owner)?);
    let key = Key::at(&directory.join("key"), owner)?;
    let signer = Signer::start(Arc::clone(&log), Some(key), |_error| ())?;
    let call = Call {
        id: "20261122T140001.482113-4711-1".to_owned(),
        server: "git".to_owned(),
        method: "tools/call".to_owned(),
        target: Some("git_commit".to_owned()),
        profile: "git-write".to_owned(),
        who: "inspector/1.0 uid 1000".to_owned(),
        identity: None,
        trace: None,
    };
    let arguments = format!(r#"{{"name":"git_commit","arguments":{{"message":"{}"}}}}"#, "x".repeat(300));
    let parameters = RawValue::from_string(arguments)?;
    let mut times = Vec::with_capacity(RECORDS);
    for _ in 0..RECORDS {
        let start = Instant::now();
        log.write(&Started::new(&call, Some(&parameters), &[], SystemTime::now()))?;
        signer.recorded();
        times.push(start.elapsed());
        // Calls do not come as fast as records can be written.
        measure::rest(Duration::from_micros(100));
    }
    Ok(times.into())
}
