//! `toolcell token`: makes tokens, lists them, takes them back. Their hashes, or the keys derived
//! from them, are in `tokens.toml` beside the configuration.
//!
//! Neighbours: `policy::tokens` reads the file, `access` compares with it. Never: writes a token anywhere but to stdout,
//! or leaves half a file.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::compose::Surroundings;
use crate::access::{fingerprint, signing_key};
use crate::audit::rfc3339;
use crate::cli::{TokenArgs, TokenCommand, Typed};
use crate::diag::{self, Failure};
use crate::exit_codes::Ending;
use crate::policy::config::Config;
use crate::policy::config::access::Mode;
use crate::policy::files::FilesError;
use crate::policy::mistakes::closest;
use crate::policy::tokens::{SALT, Secret, Token, to_hex};
use crate::policy::units::parse_duration;
use crate::sys::environment;
use crate::text::{escape, quoted_path};

/// How long a token is good if nobody says otherwise.
const DEFAULT_LIFE: Duration = Duration::from_secs(90 * DAY);
const LONGEST_LIFE: Duration = Duration::from_secs(3650 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// By this a scanner for secrets finds a token where it should not be.
const PREFIX: &str = "toolcell_";

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("the configuration has no identity `{0}`")]
    NoIdentity(String),
    #[error("there is no token `{0}`")]
    NoToken(String),
    #[error("cannot use the value `{0}` of `--expires`")]
    Expires(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot read random bytes")]
    Random(#[source] io::Error),
    #[error("cannot write `{}`", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

fn files_failed(error: FilesError) -> Failure {
    let hint = error.hint();
    Failure::new(Ending::Configuration, error).hint(hint)
}

/// Runs one of the subcommands.
pub(super) fn run(args: &TokenArgs) -> Result<Ending, Failure> {
    let library = Surroundings::of_process(Some(&args.config))?.library;
    let config = library.config().map_err(files_failed)?;
    // The configuration was read, so there is a place beside it.
    let path = library.tokens_file().unwrap_or_default();
    let read = || library.tokens().map_err(files_failed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match &args.command {
        TokenCommand::List => super::print(list(&read()?, &config, now).as_bytes()),
        TokenCommand::New { identity, expires } => {
            let known = config.access.identities.keys().map(String::as_str);
            if !config.access.identities.contains_key(identity) {
                let hint = closest(identity, known).map_or_else(
                    || format!("write `[identities.{identity}]` in `{}`", args.config.display()),
                    |meant| format!("did you mean `{meant}`?"),
                );
                let error = TokenError::NoIdentity(identity.clone());
                return Err(Failure::new(Ending::Configuration, error).hint(Some(hint)));
            }
            let (token, secret) = make(identity, config.access.mode, now + life(expires.as_ref())?)?;
            let new = NewFile::beside(&path)?;
            let mut tokens = read()?;
            let told = format!(
                "token `{}` of identity `{identity}`, good until {}; it is shown this once\n",
                token.id,
                date(token.expires)
            );
            tokens.push(token);
            new.replace(&path, &tokens)?;
            let printed = super::print(&secret);
            environment::forget(secret);
            diag::write_to_stderr(&told);
            printed
        }
        TokenCommand::Revoke { id } => {
            let new = NewFile::beside(&path)?;
            let mut tokens = read()?;
            let before = tokens.len();
            let hint = closest(id, tokens.iter().map(|token| token.id.as_str()))
                .map_or("`toolcell token list` names all there are".to_owned(), |meant| {
                    format!("did you mean `{meant}`?")
                });
            tokens.retain(|token| token.id != *id);
            if tokens.len() == before {
                return Err(
                    Failure::new(Ending::Configuration, TokenError::NoToken(id.clone())).hint(Some(hint))
                );
            }
            new.replace(&path, &tokens)?;
            super::print(format!("token `{id}` is revoked, in sessions that run too\n").as_bytes())
        }
    }
}

fn life(typed: Option<&Typed>) -> Result<Duration, Failure> {
    let Some(typed) = typed else { return Ok(DEFAULT_LIFE) };
    let failed = |error, hint: Option<String>| {
        Failure::new(Ending::Usage, TokenError::Expires(typed.text.clone(), error)).hint(hint)
    };
    match parse_duration(&typed.text) {
        Ok(life) if !life.is_zero() && life <= LONGEST_LIFE => Ok(life),
        Ok(_) => Err(failed("out of range".into(), Some("from `1s` to `3650d`".to_owned()))),
        Err(error) => {
            let hint = error.hint();
            Err(failed(error.into(), hint))
        }
    }
}

/// A token's entry, and its text with a newline.
fn make(identity: &str, mode: Mode, end: Duration) -> Result<(Token, Vec<u8>), Failure> {
    let random = |bytes: &mut [u8]| {
        let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(bytes));
        read.map_err(|error| Failure::new(Ending::Other, TokenError::Random(error)))
    };
    let (mut salt, mut bits) = ([0; SALT], [0; 32]);
    random(&mut salt)?;
    random(&mut bits)?;
    let secret = format!("{PREFIX}{}", to_hex(&bits)).into_bytes();
    // HMAC takes any key, so there is a hash.
    let hash = fingerprint(&salt, &secret).unwrap_or_default();
    let id = to_hex(hash.get(..4).unwrap_or_default());
    // A part of a second is one more.
    let expires = end.as_secs().saturating_add(u64::from(end.subsec_nanos() > 0));
    let kept = match mode {
        Mode::Signed => signing_key(&secret).map(Secret::Signing),
        Mode::None | Mode::Token => None,
    };
    let kept = kept.unwrap_or(Secret::Hash { salt, hash });
    let token = Token { id, identity: identity.to_owned(), secret: kept, expires };
    Ok((token, [secret.as_slice(), b"\n"].concat()))
}

fn date(seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).replace(".000000", "")
}

fn list(tokens: &[Token], config: &Config, now: Duration) -> String {
    let width = tokens.iter().map(|token| token.identity.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Token { id, identity, secret, expires } in tokens {
        let mode = config.access.mode;
        let fits = match secret {
            Secret::Hash { .. } => mode != Mode::Signed,
            Secret::Signing(_) => mode != Mode::Token,
        };
        let state = if !config.access.identities.contains_key(identity) {
            "  no such identity"
        } else if now >= Duration::from_secs(*expires) {
            "  expired"
        } else if !fits {
            "  of another mode"
        } else {
            ""
        };
        let _infallible =
            writeln!(text, "{}  {:width$}  {}{state}", escape(id), escape(identity), date(*expires));
    }
    text
}

/// The lines of what a token is known by.
fn kept(secret: &Secret) -> String {
    match secret {
        Secret::Hash { salt, hash } => format!("salt = \"{}\"\nhash = \"{}\"\n", to_hex(salt), to_hex(hash)),
        Secret::Signing(key) => format!("signing = \"{}\"\n", to_hex(&key.0)),
    }
}

/// The file that takes the old one's place when it is whole; dropped before, it is gone. It is made before the old one is
/// read, and as long as it is there it keeps a second writer out.
struct NewFile {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl NewFile {
    fn beside(path: &Path) -> Result<Self, Failure> {
        let path = path.with_extension("toml.new");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Self { path, file, placed: false }),
            Err(error) => {
                let taken = error.kind() == io::ErrorKind::AlreadyExists;
                let hint = taken.then(|| {
                    format!("if no `toolcell token` is at work, one was killed: rm {}", quoted_path(&path))
                });
                Err(Failure::new(Ending::Other, TokenError::Write(path, error)).hint(hint))
            }
        }
    }

    /// Puts it, with these tokens, in the old one's place.
    fn replace(mut self, path: &Path, tokens: &[Token]) -> Result<(), Failure> {
        let mut text = String::from(
            "# Written by `toolcell token`. No token can be had from what is here; with `signing` one can sign.\n",
        );
        for Token { id, identity, secret, expires } in tokens {
            let (kept, expires) = (kept(secret), date(*expires));
            let _infallible = write!(
                text,
                "\n[[tokens]]\nid = \"{id}\"\nidentity = \"{identity}\"\n{kept}expires = {expires}\n"
            );
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        written
            .and_then(|()| fs::rename(&self.path, path))
            .map_err(|error| Failure::new(Ending::Other, TokenError::Write(path.to_owned(), error)))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Another's may be at this path once this one has taken the old one's place.
        if !self.placed {
            drop(fs::remove_file(&self.path));
        }
    }
}
