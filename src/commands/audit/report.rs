//! `toolcell audit report`: writes what the records of a log say together as one page.
//!
//! Neighbours: `html` makes the page, `stats` the numbers. Never: overwrites what is not a plain file of this user's.

use std::path::Path;

use super::{file_failed, html, stats};
use crate::audit::Report;
use crate::cli::Chosen;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::sys::identity;

pub(super) fn run(log: &Path, chosen: &Chosen, html: &Path) -> Result<Ending, Failure> {
    let (summary, strange) = stats::summary(log, chosen)?;
    let page = html::page(&summary, strange);
    let report = Report::create(html, identity::effective().0).map_err(file_failed)?;
    report.write_text(page.as_bytes()).map_err(file_failed)?;
    Ok(Ending::Success)
}
