//! Decides about each request: who sent it, whether that identity may, and whether it may now.
//!
//! Neighbours: `session` tells what is decided to the client and the log. Never: tells in an error what would help to
//! guess: which token was nearly right, or whom there is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io};

use super::known::Known;
use super::limits::{Pass, Reached, Used};
use super::nonces::{Nonces, Taken};
use super::now::Now;
use super::request::{self, About, Request, SIGNATURE_MEMBER, TOKEN_MEMBER};
use super::rights::{Verdict, merged, verdict};
use super::secret::is_code;
use super::signed::{Proof, signed_text};
use super::{front, listed};
use crate::mcp::envelope::Message;
use crate::policy::config::access::{Access, Mode, Role};
use crate::policy::pattern::{Item, Kind, Pattern};
use crate::policy::print::quote;
use crate::policy::tokens::{HASH, Secret, Token};
use crate::policy::units::print_duration;

/// A request that may go on.
#[derive(Debug)]
pub struct Admitted {
    /// Who sent it.
    pub identity: Rc<str>,
    /// Its place among the identity's calls; a list or handshake has none.
    pub pass: Option<Pass>,
    /// The line without what proved who sent it, if that changed it.
    pub line: Option<Vec<u8>>,
}

/// Of which kind a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It could be read in two ways.
    Malformed,
    /// A method that no right covers.
    NotOffered,
    /// It does not show who sent it.
    Unauthenticated,
    /// The identity may not.
    Forbidden,
    /// The identity may, but not now.
    Limited,
}

/// A request that is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    /// Of which kind.
    pub reason: Reason,
    /// Who sent it, if that was shown.
    pub identity: Option<Rc<str>>,
    /// What it wanted, e.g. "call the tool `git_push` of server `git`".
    pub wanted: String,
    /// Why it is refused, one fragment.
    pub why: String,
    /// The TOML that would allow it, or `None` when nothing should.
    pub allow: Option<String>,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => {
                write!(f, "toolcell refused identity `{identity}` to {}: {}", self.wanted, self.why)?
            }
            None => write!(f, "toolcell refused to {}: {}", self.wanted, self.why)?,
        }
        match &self.allow {
            Some(allow) => write!(f, "\nTo allow it:\n{allow}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Person {
    name: Rc<str>,
    roles: Vec<(String, Role)>,
    rights: Role,
    used: RefCell<Used>,
}

/// What a token has shown.
#[derive(Debug, Clone, Copy)]
enum Shown {
    Nothing,
    /// It is none that is known.
    Unknown,
    /// It is this one.
    Token(usize),
}

/// Stands between one session's client and the server.
#[derive(Debug)]
pub struct Gate {
    server: String,
    people: BTreeMap<String, Person>,
    known: RefCell<Known>,
    proof: Proven,
}

/// How a request shows who sent it.
#[derive(Debug)]
enum Proven {
    /// By a token; for requests that bring none, by that of the environment, of which this is what it is known by.
    Token { standing: Cell<Shown>, secret: Option<Secret> },
    /// By the word of the front that started this process, and knows this key with it.
    Fronted { key: Vec<u8> },
    /// By a signature.
    Signed { window: Duration, nonces: Option<RefCell<Nonces>> },
}

impl Gate {
    /// The gate before a server; none where everybody may call everything. `token` is the one of the environment, which
    /// is not kept.
    #[must_use]
    pub fn new(server: &str, access: &Access, tokens: Vec<Token>, token: Option<&[u8]>) -> Option<Self> {
        match access.mode {
            Mode::None => return None,
            Mode::Token | Mode::Signed => {}
        }
        let people = access.identities.iter().map(|(name, identity)| {
            let roles: Vec<(String, Role)> = identity
                .roles
                .iter()
                .filter_map(|role| Some((role.clone(), access.roles.get(role)?.clone())))
                .collect();
            let rights = roles.iter().fold(Role::default(), |rights, (_, role)| merged(rights, role));
            let used = RefCell::new(Used::nothing(identity));
            (name.clone(), Person { name: Rc::from(name.as_str()), roles, rights, used })
        });
        let mut gate = Self {
            server: server.to_owned(),
            people: people.collect(),
            known: RefCell::new(Known::new(tokens)),
            proof: Proven::Token { standing: Cell::new(Shown::Nothing), secret: None },
        };
        if access.mode == Mode::Signed {
            gate.proof = Proven::Signed { window: access.window(), nonces: None };
        } else if let Some(token) = token {
            let shown = gate.show(token);
            let secret = match shown {
                Shown::Token(number) => {
                    gate.known.borrow().tokens.get(number).map(|token| token.secret.clone())
                }
                Shown::Nothing | Shown::Unknown => None,
            };
            gate.proof = Proven::Token { standing: Cell::new(shown), secret };
        }
        Some(gate)
    }

    /// The same behind a front, which has seen who sends: nothing but its word counts.
    #[must_use]
    pub fn behind(mut self, key: Vec<u8>) -> Self {
        self.proof = Proven::Fronted { key };
        self
    }

    /// The same with the nonces of signed requests; without, no request goes on that has to be signed.
    #[must_use]
    pub fn remembering(mut self, nonces: Nonces) -> Self {
        if let Proven::Signed { nonces: place, .. } = &mut self.proof {
            *place = Some(RefCell::new(nonces));
        }
        self
    }

    /// The same, but tokens count as long as they are in their file, which is read again when it has changed.
    #[must_use]
    pub fn rereading(self, path: PathBuf, read: impl Fn() -> io::Result<String> + 'static) -> Self {
        self.known.borrow_mut().reread(path, read);
        self
    }

    /// Looks whether the file of tokens has changed, and finds the token of the environment in it again.
    fn refresh(&self, now: Now) -> Result<(), String> {
        let mut known = self.known.borrow_mut();
        let read = known.refresh(now.date);
        if let (Ok(true) | Err(_), Proven::Token { standing, secret: Some(secret) }) = (&read, &self.proof) {
            let number = known.tokens.iter().position(|token| token.secret == *secret);
            standing.set(number.map_or(Shown::Unknown, Shown::Token));
        }
        read.map(drop).map_err(|why| format!("toolcell cannot read its tokens, so it knows none: {why}"))
    }

    /// Looks at every token, whichever it is.
    fn show(&self, token: &[u8]) -> Shown {
        self.known.borrow().tokens.iter().enumerate().fold(Shown::Unknown, |found, (number, known)| {
            match &known.secret {
                Secret::Hash { salt, hash } if is_code(salt, token, hash) => Shown::Token(number),
                Secret::Hash { .. } | Secret::Signing(_) => found,
            }
        })
    }

    /// Lets a request go on, and counts it.
    ///
    /// # Errors
    /// Why it may not; then nothing is counted.
    pub fn admit(&self, line: &[u8], message: &Message, method: &str, now: Now) -> Result<Admitted, Denied> {
        let denied = |reason, identity: Option<&Person>, wanted: &str, why: String| Denied {
            reason,
            identity: identity.map(|person| Rc::clone(&person.name)),
            wanted: wanted.to_owned(),
            why,
            allow: None,
        };
        let plain = format!("use the method `{method}` of server `{}`", self.server);
        let request = Request::read(line, message, method)
            .map_err(|why| denied(Reason::Malformed, None, &plain, why))?;
        let wanted = match &request.about {
            About::Items(items) => self.wanted(items),
            About::Common | About::Other => plain,
        };
        let person = self
            .sender(line, method, &request, now)
            .map_err(|(reason, why)| denied(reason, None, &wanted, why))?;
        let items = match &request.about {
            About::Common => &[][..],
            About::Items(items) => items.as_slice(),
            About::Other => {
                let why = "no role can allow this method".to_owned();
                return Err(denied(Reason::NotOffered, Some(person), &wanted, why));
            }
        };
        for item in items {
            if let Some((why, allow)) = self.objection(person, item) {
                let wanted = self.wanted(std::slice::from_ref(item));
                return Err(Denied { allow, ..denied(Reason::Forbidden, Some(person), &wanted, why) });
            }
        }
        let pass = if items.is_empty() {
            None
        } else {
            let called = person.used.borrow_mut().call(&self.server, items, now.steady);
            Some(called.map_err(|reached| {
                let (why, allow) = limited(&person.name, &reached);
                Denied { allow: Some(allow), ..denied(Reason::Limited, Some(person), &wanted, why) }
            })?)
        };
        Ok(Admitted { identity: Rc::clone(&person.name), pass, line: request::without_proof(line) })
    }

    /// A notification's line without what could prove who sent it. `None`: there is nothing of it in the line.
    #[must_use]
    pub fn stripped(&self, line: &[u8]) -> Option<Vec<u8>> {
        request::without_proof(line)
    }

    fn wanted(&self, items: &[Item]) -> String {
        let item = |item: &Item| {
            let verb = match item.kind {
                Kind::Tool => "call the tool",
                Kind::Prompt => "use the prompt",
                Kind::Resource => "read the resource",
            };
            format!("{verb} `{}`", item.name)
        };
        let items: Vec<String> = items.iter().map(item).collect();
        format!("{} of server `{}`", items.join(" and "), self.server)
    }

    fn sender(
        &self,
        line: &[u8],
        method: &str,
        request: &Request,
        now: Now,
    ) -> Result<&Person, (Reason, String)> {
        let unauthenticated = |why| (Reason::Unauthenticated, why);
        if let Proven::Fronted { key } = &self.proof {
            let word = request.front.as_deref().and_then(|word| front::read(key, word));
            let person = word.and_then(|name| self.people.get(name));
            return person.ok_or_else(|| unauthenticated("its front does not say who sends it".to_owned()));
        }
        self.refresh(now).map_err(unauthenticated)?;
        let (window, nonces) = match &self.proof {
            Proven::Token { standing, .. } => {
                return self.bearer(request.token.as_deref(), standing.get(), now).map_err(unauthenticated);
            }
            Proven::Signed { window, nonces } => (*window, nonces.as_ref()),
            // Its word alone counts, and was read above.
            Proven::Fronted { .. } => return Err(unauthenticated(String::new())),
        };
        let Some(span) = &request.signature else {
            return Err(unauthenticated(format!(
                "it is not signed: it has no `{SIGNATURE_MEMBER}` in `_meta`"
            )));
        };
        let malformed = |why| (Reason::Malformed, why);
        let proof = Proof::read(line, span).map_err(malformed)?;
        let text = signed_text(line, &self.server, method, &proof).map_err(malformed)?;
        let (token, person) = self.signer(&proof, &text).map_err(unauthenticated)?;
        if now.date >= Duration::from_secs(token.expires) {
            return Err(unauthenticated(format!("its key `{}` has expired", token.id)));
        }
        fresh(&proof, window, nonces, now).map_err(unauthenticated)?;
        Ok(person)
    }

    /// Who signed a text. That there is no such key takes as long as that there is.
    fn signer(&self, proof: &Proof, text: &str) -> Result<(Token, &Person), String> {
        let tokens = self.known.borrow();
        let known = tokens.tokens.iter().find_map(|token| match &token.secret {
            Secret::Signing(key) if token.id == proof.key => Some((token, key)),
            Secret::Signing(_) | Secret::Hash { .. } => None,
        });
        let key = known.map_or([0; HASH], |(_, key)| key.0);
        let right = is_code(&key, text.as_bytes(), &proof.code);
        known
            .filter(|_| right)
            .and_then(|(token, _)| Some((token.clone(), self.people.get(&token.identity)?)))
            .ok_or_else(|| {
                "its key is not known, or its signature is not that of the key and the request".to_owned()
            })
    }

    /// Who sent a request with this token, or with none. A token that is there decides, also when it is wrong.
    fn bearer(&self, token: Option<&str>, standing: Shown, now: Now) -> Result<&Person, String> {
        let shown = token.map_or(standing, |token| self.show(token.as_bytes()));
        let known = self.known.borrow();
        let token = match shown {
            Shown::Token(number) => known.tokens.get(number),
            Shown::Unknown => None,
            Shown::Nothing => {
                return Err(format!(
                    "it has no token; set `TOOLCELL_TOKEN` where toolcell is started, or `{TOKEN_MEMBER}` in `_meta`"
                ));
            }
        };
        let person = token.and_then(|token| Some((token, self.people.get(&token.identity)?)));
        let Some((token, person)) = person else { return Err("its token is not known".to_owned()) };
        if now.date >= Duration::from_secs(token.expires) {
            return Err(format!("its token `{}` has expired", token.id));
        }
        Ok(person)
    }

    /// Why an identity may not use an item, and the line that would allow it.
    fn objection(&self, person: &Person, item: &Item) -> Option<(String, Option<String>)> {
        match verdict(&person.rights, &self.server, item) {
            Verdict::Allowed => None,
            Verdict::Denied(pattern) => {
                let by = person.roles.iter().find(|(_, role)| role.deny.contains(&pattern));
                let by = by.map_or("", |(name, _)| name);
                Some((format!("`deny = [\"{pattern}\"]` in `[roles.{by}]`"), None))
            }
            Verdict::Ambiguous => {
                let why = "its URI can be written in another way: with `.`, `..` or nothing as a step, a backslash, capitals in scheme or host, `file:` without `///`, escapes of what needs none or in small letters";
                Some((why.to_owned(), None))
            }
            Verdict::NotAllowed => Some(match person.roles.first() {
                Some((role, _)) => {
                    let roles: Vec<String> =
                        person.roles.iter().map(|(name, _)| format!("`{name}`")).collect();
                    let pattern = Pattern::exactly(&self.server, item);
                    let line = |pattern: Pattern| {
                        format!("[roles.{role}]\nallow = [{}]", quote(&pattern.to_string()))
                    };
                    (format!("none of its roles ({}) allows it", roles.join(", ")), pattern.map(line))
                }
                None => {
                    let line = format!("[identities.{}]\nroles = [\"NAME\"]", person.name);
                    ("it has no role".to_owned(), Some(line))
                }
            }),
        }
    }

    /// The line of a list with what an identity may use.
    #[must_use]
    pub fn listed(&self, identity: &str, method: &str, line: Vec<u8>) -> Vec<u8> {
        let person = self.people.get(identity);
        let may = |item: &Item| {
            person.is_some_and(|person| verdict(&person.rights, &self.server, item) == Verdict::Allowed)
        };
        listed::filtered(line, method, may)
    }
}

/// Refuses what was signed too long ago or too far ahead, or was here before. The signature is known to be right, so only
/// who has the key is told.
fn fresh(proof: &Proof, window: Duration, nonces: Option<&RefCell<Nonces>>, now: Now) -> Result<(), String> {
    if let Some(apart) = proof.outside(window, now.date) {
        let side = if Duration::from_secs(proof.timestamp) < now.date { "behind" } else { "ahead of" };
        let (apart, window) = (apart.as_secs_f64().ceil(), print_duration(window));
        return Err(format!(
            "its timestamp is {apart} seconds {side} toolcell's clock, and `window` is {window}"
        ));
    }
    let Some(nonces) = nonces else {
        return Err("toolcell keeps no nonces here".to_owned());
    };
    match nonces.borrow_mut().take(&proof.key, &proof.nonce, proof.timestamp, now.date) {
        Ok(Taken::First) => Ok(()),
        Ok(Taken::Again) => Err("its nonce was here before: each request needs one of its own".to_owned()),
        Ok(Taken::TooOld) => Err("its timestamp is older than nonces that toolcell has forgotten; if a clock was set back, sign anew later".to_owned()),
        Err(error) => Err(format!("toolcell cannot keep its nonce: {error}")),
    }
}

fn limited(identity: &str, reached: &Reached) -> (String, String) {
    let place = format!("[identities.{identity}]");
    match reached {
        Reached::Rate(rate, wait) => {
            let (tools, calls, per) = (&rate.tools, rate.calls, print_duration(rate.per));
            // The time is rounded up, so that who waits for it does not come too early.
            let wait = print_duration(Duration::from_millis(
                u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX),
            ));
            let more = rate.burst.saturating_mul(2);
            (
                format!(
                    "`{tools}` may be called {calls} times in {per}; the next call is possible in {wait}"
                ),
                format!(
                    "{place}\nrates = [{{ tools = \"{tools}\", calls = {calls}, per = \"{per}\", burst = {more} }}]"
                ),
            )
        }
        Reached::Concurrent(most) => (
            format!("{most} of its calls are running, and `concurrent` is {most}"),
            format!("{place}\nconcurrent = {}", most.saturating_mul(2)),
        ),
        Reached::Quota(most) => (
            format!("it has made {most} calls since `toolcell run` was started, and `quota` is {most}"),
            format!("{place}\nquota = {}", most.saturating_mul(2)),
        ),
    }
}

#[cfg(test)]
#[path = "gate/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "gate/signed.rs"]
mod signed;
