//! What was typed behind `toolcell serve`.
//!
//! Neighbours: `cli` parses with it; `commands::serve` acts on it. Never: resolves a value.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ArgMatches;

use super::{CliError, RunArgs, Typed, many, required, run, typed};

/// The arguments of `toolcell serve`.
#[derive(Debug, PartialEq, Eq)]
pub struct ServeArgs {
    /// `--http`
    pub http: SocketAddr,
    /// `--tls-cert` and `--tls-key`
    pub tls: Option<(PathBuf, PathBuf)>,
    /// `--behind-tls-proxy`
    pub behind_tls_proxy: bool,
    /// `--allow-host`, in the order typed.
    pub allow_host: Vec<String>,
    /// `--allow-origin`, in the order typed.
    pub allow_origin: Vec<String>,
    /// `--sessions`
    pub sessions: Option<Typed>,
    /// `--session-idle`
    pub idle: Option<Typed>,
    /// What is run behind it.
    pub run: RunArgs,
}

pub(super) fn serve(matches: &mut ArgMatches) -> Result<ServeArgs, CliError> {
    Ok(ServeArgs {
        http: required(matches, "http")?,
        tls: matches.remove_one("tls-cert").zip(matches.remove_one("tls-key")),
        behind_tls_proxy: matches.get_flag("behind-tls-proxy"),
        allow_host: many(matches, "allow-host"),
        allow_origin: many(matches, "allow-origin"),
        sessions: typed(matches, "sessions", "--sessions"),
        idle: typed(matches, "session-idle", "--session-idle"),
        run: run(matches)?,
    })
}
