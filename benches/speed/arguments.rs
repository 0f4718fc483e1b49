//! What checking a call's arguments costs the call: its line looked at for what could be read in two ways, its parameters read, and the
//! arguments looked at by a schema like that of a filesystem server's tool for editing, which is the largest of its list.
//!
//! Neighbours: `main` has the row among the others. Never: times the making of the schema, which is made once.

use std::time::Instant;

use toolcell::arguments::{Author, compile, strict};
use toolcell::mcp::envelope;
use toolcell::session::readable;

use crate::measure::{self, Result, Row, Times};

/// Enough for a median that comes out the same again.
const CALLS: usize = 10_000;
/// What the path of a call may wait for it.
const LIMIT_US: u64 = 50;

const SCHEMA: &str = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{
"path":{"type":"string","minLength":1,"maxLength":4096,"pattern":"^/"},
"edits":{"type":"array","maxItems":64,"items":{"type":"object","properties":{
"oldText":{"type":"string","description":"Text to search for"},"newText":{"type":"string","description":"Text to replace it with"}},
"required":["oldText","newText"],"additionalProperties":false}},
"mode":{"enum":["apply","preview"]},
"dryRun":{"type":"boolean","default":false}},
"required":["path","edits"],"additionalProperties":false}"#;

/// The median of a usual call.
pub(crate) fn row() -> Result<Row> {
    let document = strict::read(SCHEMA.as_bytes()).map_err(|wrong| format!("{wrong:?}"))?;
    let schema = compile(&document, Author::Server).map_err(|mistakes| format!("{mistakes:?}"))?;
    let edit =
        format!(r#"{{"oldText":"{}","newText":"{}"}}"#, "old line\\n".repeat(8), "new line\\n".repeat(8));
    let arguments = format!(
        r#"{{"path":"/srv/data/project/src/main.rs","edits":[{edit},{edit},{edit}],"mode":"apply","dryRun":false}}"#
    );
    let meta = r#"{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"edit_file","arguments":{arguments},"_meta":{meta}}}}}"#
    );
    let line = line.as_bytes();
    let params = envelope::parse(line).map_err(|refusal| refusal.detail)?.params.unwrap_or_default();
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        let value = readable(line, params.clone()).map_err(|fault| fault.to_string())?;
        schema.check(&value).map_err(|found| format!("{found:?}"))?;
        times.push(start.elapsed());
    }
    let median = u64::try_from(Times::from(times).median().as_nanos().div_ceil(1_000))?;
    Ok(measure::amount("checking the arguments of a call", median, LIMIT_US, "µs"))
}
