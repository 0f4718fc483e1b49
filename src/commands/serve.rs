//! `toolcell serve`: HTTP in front of `toolcell run`.
//!
//! Neighbours: `front` serves; `commands::run` is what its children are. Never: starts a cell, or listens off loopback for
//! everybody.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use super::compose::Surroundings;
use crate::access::{FRONT_VARIABLE, Holders, TOKEN_VARIABLE};
use crate::cli::{ColorChoice, ServeArgs, Server, Typed};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::front::child::Start;
use crate::front::{self, Auth, Hosts, Jwt, Options, PATH, is_name, is_origin};
use crate::launch::own;
use crate::policy::config::access::{Access, Mode};
use crate::policy::tokens::to_hex;
use crate::policy::units::parse_duration;
use crate::sys::{environment, readiness, signals};
use crate::text::escape;

const SESSIONS: usize = 32;
const MOST_SESSIONS: usize = 10_000;
const IDLE: Duration = Duration::from_secs(10 * 60);
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
const LONGEST_IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest line of a child that is passed on.
const LONGEST_LINE: usize = 16 * 1024 * 1024;
/// Bytes of the key that this process and its children have.
const KEY: usize = 32;

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot read `/dev/urandom`")]
    Random(#[source] io::Error),
    #[error("cannot hear of signals")]
    Signals(#[source] crate::sys::Errno),
    #[error("{0} is not loopback, and everybody may call everything: there is no `[auth]`")]
    NoAuth(SocketAddr),
    #[error("{0} is not loopback, and tokens would go over the network in clear: there is no TLS")]
    NoTls(SocketAddr),
    #[error("{0} is every address of this host, and no name of it is allowed")]
    NoName(SocketAddr),
    #[error("requests that are signed cannot be served over HTTP: `mode = \"signed\"`")]
    Signed,
}

/// Serves until a signal ends it.
pub(super) fn run(args: &ServeArgs, color: ColorChoice) -> Result<Ending, Failure> {
    // Who starts this process is not who sends it requests, so what that one could show counts for nothing.
    if let Some(token) = environment::take(TOKEN_VARIABLE) {
        environment::forget(token);
    }
    // Keys are in this process's memory.
    own::confine_front().map_err(|errno| Failure::new(Ending::Other, errno))?;
    let config = match &args.run.server {
        Server::Command(_) => None,
        Server::Configured { config, .. } | Server::Several { config, .. } => Some(config.as_path()),
    };
    let surroundings = Surroundings::of_process(config)?;
    let access = match config {
        None => Access::default(),
        Some(_) => surroundings.library.config().map_err(super::run::files_failed)?.access,
    };
    let auth = auth(&access, &surroundings, color)?;
    guarded(args, auth.is_some())?;
    let tls = args.tls.as_ref().map(|(certificate, key)| front::tls::server(certificate, key)).transpose();
    let tls = tls.map_err(|error| Failure::new(Ending::Configuration, error))?;
    if let Some(name) = args.allow_host.iter().find(|name| !is_name(name)) {
        return Err(unfit("--allow-host", name, "write a name or address without scheme and port"));
    }
    if let Some(origin) = args.allow_origin.iter().find(|origin| !is_origin(origin)) {
        let hint = "write scheme, name and port, such as https://app.example";
        return Err(unfit("--allow-origin", origin, hint));
    }
    let (sessions, idle) = (sessions(args.sessions.as_ref())?, idle(args.idle.as_ref())?);
    let key = random().map_err(|error| Failure::new(Ending::Other, ServeError::Random(error)))?;
    let open = || File::open("/dev/urandom");
    let random = open().map_err(|error| Failure::new(Ending::Other, ServeError::Random(error)))?;
    let listen = |error| Failure::new(Ending::Other, ServeError::Listen(args.http, error));
    let listener = TcpListener::bind(args.http).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let heard = signals::heard(&[libc::SIGTERM, libc::SIGINT])
        .map_err(|errno| Failure::new(Ending::Other, ServeError::Signals(errno)))?;
    let options = Options {
        start: Start {
            program: PathBuf::from("/proc/self/exe"),
            arguments: args.run.words(color),
            set: vec![(name_of(FRONT_VARIABLE), OsString::from_vec(key.clone()))],
            removed: vec![name_of(TOKEN_VARIABLE)],
            longest: LONGEST_LINE,
        },
        key,
        hosts: Hosts::new(address, &args.allow_host, &args.allow_origin),
        auth,
        sessions,
        idle,
        random,
        tls,
    };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let up = move || diag::write_to_stderr(&format!("toolcell serves {scheme}://{address}{PATH}\n"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Ending::Other, error))?;
    let served = runtime.block_on(async {
        let signal = readiness::readable(heard)
            .map_err(|errno| Failure::new(Ending::Other, ServeError::Signals(errno)))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
        let stop = async move { drop(signal.readable().await) };
        // The child that does not start has said why.
        front::serve(listener, options, stop, up).await.map_err(|error| Failure::new(Ending::Other, error))
    });
    // A look-up of a name that takes long must not keep the process.
    runtime.shutdown_background();
    served.map(|()| Ending::Success)
}

/// Who may send, if that is asked.
fn auth(access: &Access, surroundings: &Surroundings, color: ColorChoice) -> Result<Option<Auth>, Failure> {
    match access.mode {
        Mode::None => return Ok(None),
        Mode::Signed => {
            let hint = "write `mode = \"token\"`; over HTTP a token stands in the header `authorization`";
            return Err(Failure::new(Ending::Configuration, ServeError::Signed).hint(Some(hint.to_owned())));
        }
        Mode::Token => {}
    }
    let library = &surroundings.library;
    let mut holders = Holders::new(access, library.tokens().map_err(super::run::files_failed)?);
    if let Some(path) = library.tokens_file() {
        let library = library.clone();
        let read = move || library.tokens_and_text().map(|(_, text)| text).map_err(io::Error::other);
        holders = holders.rereading(path, read);
    }
    let notice = move |text: &str| diag::warn(color, &escape(text), None);
    let jwt = access.jwt.clone().map(|rules| Jwt::new(rules, notice)).transpose();
    let jwt = jwt.map_err(|error| Failure::new(Ending::Configuration, error))?;
    Ok(Some(Auth { holders, jwt }))
}

/// Refuses to listen off loopback without what has to be there.
fn guarded(args: &ServeArgs, asked: bool) -> Result<(), Failure> {
    let ip = args.http.ip();
    if ip.is_loopback() {
        return Ok(());
    }
    let refused =
        |error, hint: &str| Err(Failure::new(Ending::Configuration, error).hint(Some(hint.to_owned())));
    if !asked {
        return refused(
            ServeError::NoAuth(args.http),
            "listen on 127.0.0.1, or name a configuration with `[auth]` and `mode = \"token\"`",
        );
    }
    if args.tls.is_none() && !args.behind_tls_proxy {
        return refused(
            ServeError::NoTls(args.http),
            "give `--tls-cert FILE --tls-key FILE`, or `--behind-tls-proxy` if a proxy in front ends TLS",
        );
    }
    if ip.is_unspecified() && args.allow_host.is_empty() {
        return refused(ServeError::NoName(args.http), "say how clients call it: `--allow-host NAME`");
    }
    Ok(())
}

fn random() -> io::Result<Vec<u8>> {
    let mut bytes = [0; KEY];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(to_hex(&bytes).into_bytes())
}

fn name_of(variable: &std::ffi::CStr) -> OsString {
    std::ffi::OsStr::from_bytes(variable.to_bytes()).to_owned()
}

fn unfit(option: &str, text: &str, hint: &str) -> Failure {
    Failure::new(Ending::Usage, format!("`{text}` is not a value of `{option}`")).hint(Some(hint.to_owned()))
}

fn sessions(typed: Option<&Typed>) -> Result<usize, Failure> {
    let Some(typed) = typed else { return Ok(SESSIONS) };
    match typed.text.parse() {
        Ok(sessions @ 1..=MOST_SESSIONS) => Ok(sessions),
        _ => Err(unfit(typed.option, &typed.text, "write a number from 1 to 10000")),
    }
}

fn idle(typed: Option<&Typed>) -> Result<Duration, Failure> {
    let Some(typed) = typed else { return Ok(IDLE) };
    match parse_duration(&typed.text) {
        Ok(idle) if (SHORTEST_IDLE..=LONGEST_IDLE).contains(&idle) => Ok(idle),
        _ => Err(unfit(typed.option, &typed.text, "write a time from 1s to 24h")),
    }
}
