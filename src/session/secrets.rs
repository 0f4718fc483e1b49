//! The secrets of one call: asked for before its record is written, handed to its cell, masked in all that it says.
//!
//! A call of a tool that gets none passes here without a look at a byte.
//!
//! Neighbours: [`super::call`] asks for them, [`super::process`] masks by a [`Mask`]. Never: keeps a value longer than its call.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::Session;
use crate::launch::handover::{Handover, Kind as HandedAs};
use crate::mcp::envelope::{self, Kind};
use crate::mcp::frame::Piece;
use crate::outcome::{Redaction, SecretUse, Violation};
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::policy::Policy;
use crate::policy::config::secrets::{Place, Secret};
use crate::policy::network::Network;
use crate::secrets::keeper::Keeper;
use crate::secrets::redact::{Form, Forms, Hit, Stream};
use crate::secrets::{Loaded, MOST_TOGETHER, Need, State};
use crate::sys::wiped::Wiped;

/// Where the secrets of a session come from, and which tool gets which.
#[derive(Debug)]
pub struct Secrets {
    /// Reads them.
    pub keeper: Keeper,
    /// By tool.
    pub needs: BTreeMap<String, Vec<Need>>,
    /// Those that doors put in.
    pub doors: Vec<OfDoor>,
    /// Those of which the operator was told that they are due.
    pub told: RefCell<BTreeSet<String>>,
}

/// A secret that a door puts in.
#[derive(Debug)]
pub struct OfDoor {
    /// As a profile describes it.
    pub secret: Secret,
    /// How it is asked for; its name is the door's.
    pub need: Need,
}

impl Secrets {
    /// What a cell of a policy needs for its doors.
    pub fn of_doors<'s>(&'s self, network: &'s Network) -> impl Iterator<Item = &'s Need> {
        network.with_credential().filter_map(|(_, http)| {
            let secret = http.credential.as_ref()?.secret.as_deref()?;
            let name = http.destination().to_string();
            let mut of_door = self.doors.iter();
            Some(&of_door.find(|one| one.need.name == name && one.secret == *secret)?.need)
        })
    }
}

/// Secrets that were read for a call.
#[derive(Debug)]
pub(super) struct Fetched {
    values: Vec<(Need, Wiped)>,
    pub(super) mask: Rc<Mask>,
}

/// Why a call gets no secret, and what its record has of it.
#[derive(Debug)]
pub(super) struct NotFetched {
    pub(super) detail: String,
    pub(super) uses: Vec<SecretUse>,
}

fn used(need: &Need, state: State, age_s: Option<u64>) -> SecretUse {
    SecretUse {
        name: need.name.clone(),
        into: need.into.describe(),
        state: state.name().to_owned(),
        age_s,
        max_age_s: need.max_age,
        redacted: Vec::new(),
    }
}

/// Reads the secrets of a tool, and of the doors of its cell; `None` if there are none.
///
/// # Errors
/// Why one of them cannot be used.
pub(super) async fn fetch(
    session: &Session,
    method: &str,
    target: Option<&str>,
    policy: Option<&Policy>,
) -> Result<Option<Fetched>, NotFetched> {
    let Some(secrets) = &session.options.secrets else { return Ok(None) };
    let tool = target.filter(|_| method == "tools/call").unwrap_or_default();
    let own = secrets.needs.get(tool).into_iter().flatten();
    let needs: Vec<&Need> =
        own.chain(policy.iter().flat_map(|policy| secrets.of_doors(&policy.network))).collect();
    if needs.is_empty() {
        return Ok(None);
    }
    let (mut values, mut uses) = (Vec::new(), Vec::new());
    let mut refusal = None;
    for need in needs {
        match secrets.keeper.load(need).await {
            Ok(Loaded { value, state, age }) => {
                uses.push(used(need, state, age.map(|age| age.as_secs())));
                if state == State::Due && secrets.told.borrow_mut().insert(need.name.clone()) {
                    (session.options.notice)(&format!(
                        "secret `{}` is due to be rotated: `toolcell secrets check` tells when it is refused",
                        need.name
                    ));
                }
                values.push((Need::clone(need), value));
            }
            Err(trouble) => {
                uses.push(used(need, trouble.state, trouble.age_s));
                let hint = trouble.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                let what = match &need.into {
                    Place::Header(header) => {
                        format!("the door `{}` has nothing to put into `{header}`", need.name)
                    }
                    Place::Env(_) | Place::File(_) => {
                        format!("tool `{tool}` cannot get secret `{}`", need.name)
                    }
                };
                let told = format!("{what}: {}{hint}", trouble.sentence());
                refusal.get_or_insert(told);
            }
        }
    }
    let of_tool = values.iter().filter(|(need, _): &&(Need, Wiped)| !matches!(need.into, Place::Header(_)));
    let together: usize = of_tool.map(|(_, value)| value.len()).sum();
    if together > MOST_TOGETHER {
        refusal = Some(format!(
            "the secrets of tool `{tool}` are longer than {MOST_TOGETHER} bytes together\n\
             hint: take the tool out of `to` of those that it does not need"
        ));
    }
    if let Some(detail) = refusal {
        return Err(NotFetched { detail, uses });
    }
    let forms = Forms::new(values.iter().map(|(need, value)| (need.name.as_str(), &**value)));
    let mask = Rc::new(Mask { forms: Arc::new(forms), uses, found: RefCell::default() });
    Ok(Some(Fetched { values, mask }))
}

impl Fetched {
    /// Doors put them in, and none is ever in the cell: its program can have been started before.
    pub(super) fn stay_outside(&self) -> bool {
        self.values.iter().all(|(need, _)| matches!(need.into, Place::Header(_)))
    }

    /// The message for the call's cell.
    ///
    /// # Errors
    /// Why a cell of this plan cannot have them.
    pub(super) fn handover(self, plan: &Plan) -> Result<Handover, String> {
        let scratch = plan.steps.iter().any(|step| matches!(step, Step::MountScratch { .. }));
        let place = |need: &Need| match &need.into {
            Place::Env(_) | Place::Header(_) => None,
            Place::File(path) => Some(path.clone()),
        };
        if let Some(path) = self.values.iter().find_map(|(need, _)| place(need)).filter(|_| !scratch) {
            return Err(format!(
                "the secret's file `{path}` needs a scratch directory in memory, and this cell has none\n\
                 hint: give the profile a `scratch` and a floor above `landlock`, or the secret `into = {{ env = \"NAME\" }}`"
            ));
        }
        let handed = self.values.iter().filter_map(|(need, value)| match &need.into {
            Place::Env(name) => Some((HandedAs::Variable, name.as_str(), &**value)),
            Place::File(path) => Some((HandedAs::File, path.as_str(), &**value)),
            Place::Header(_) => None,
        });
        let handover = Handover::of(handed).ok_or_else(|| {
            "the call's secrets are too long for one message\n\
             hint: take the tool out of `to` of those that it does not need, or give them shorter paths in `into`"
                .to_owned()
        })?;
        let of_doors = self.values.into_iter().filter(|(need, _)| matches!(need.into, Place::Header(_)));
        let doors = of_doors.map(|(need, value)| {
            let place = plan.steps.iter().find_map(|step| match step {
                Step::OpenDoors { doors } => doors
                    .network
                    .with_credential()
                    .find(|(_, http)| http.destination().to_string() == need.name),
                _ => None,
            });
            let missing = || format!("the call's cell has no door `{}`", need.name);
            place.map(|(place, _)| (place, value)).ok_or_else(missing)
        });
        Ok(handover.with_doors(doors.collect::<Result<_, _>>()?))
    }
}

/// Takes a call's secrets out of what its cell says, and counts them.
#[derive(Debug)]
pub(super) struct Mask {
    forms: Arc<Forms>,
    uses: Vec<SecretUse>,
    /// By secret, form and place.
    found: RefCell<BTreeMap<(usize, Form, String), u64>>,
}

impl Mask {
    /// A line of the cell's stdout, if there is a secret in it.
    pub(super) fn line(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut hits = Vec::new();
        let masked = self.forms.line(line, &mut hits)?;
        self.count(&hits, &place(&masked));
        Some(masked)
    }

    /// The start of a long line, to be looked at and not to be counted.
    pub(super) fn start(&self, start: &[u8]) -> Vec<u8> {
        let (mut out, mut hits) = (Vec::new(), Vec::new());
        Stream::of_line(&self.forms).push(start, false, &mut out, &mut hits);
        out
    }

    /// Other words about the call.
    pub(super) fn text(&self, text: &mut String, place: &str) {
        let hits = self.replace(text);
        self.count(&hits, place);
    }

    /// Why the call is refused, as it may be recorded. A hint can repeat a piece of what was found, so it is left out then.
    pub(super) fn refusal(&self, detail: &str) -> String {
        let mut recorded = detail.to_owned();
        let hits = self.replace(&mut recorded);
        self.count(&hits, "parameters");
        if !hits.is_empty() {
            recorded.truncate(recorded.find("\nhint: ").unwrap_or(recorded.len()));
        }
        recorded
    }

    fn replace(&self, text: &mut String) -> Vec<Hit> {
        let (mut out, mut hits) = (Vec::new(), Vec::new());
        Stream::of_text(&self.forms).push(text.as_bytes(), true, &mut out, &mut hits);
        if !hits.is_empty() {
            *text = String::from_utf8_lossy(&out).into_owned();
        }
        hits
    }

    /// What the cell was refused: it can have named things after a secret. It is looked at more than once, and counted at the end.
    pub(super) fn violations(&self, violations: &mut [Violation], at_the_end: bool) {
        for violation in violations {
            for text in std::iter::once(&mut violation.object).chain(&mut violation.allow) {
                let hits = self.replace(text);
                if at_the_end {
                    self.count(&hits, "violation");
                }
            }
        }
    }

    /// Parameters of the call as they may be recorded.
    pub(super) fn parameters(&self, json: &[u8]) -> Option<Vec<u8>> {
        let mut hits = Vec::new();
        let masked = self.forms.line(json, &mut hits)?;
        self.count(&hits, "parameters");
        Some(masked)
    }

    fn count(&self, hits: &[Hit], place: &str) {
        let mut found = self.found.borrow_mut();
        for Hit { secret, form } in hits {
            *found.entry((*secret, *form, place.to_owned())).or_default() += 1;
        }
    }

    /// Which secrets there were, and what was found of them.
    pub(super) fn uses(&self) -> Vec<SecretUse> {
        let mut uses = self.uses.clone();
        for ((secret, form, place), count) in &*self.found.borrow() {
            if let Some(used) = uses.get_mut(*secret) {
                let (form, place) = (form.name().to_owned(), place.clone());
                used.redacted.push(Redaction { form, place, count: *count });
            }
        }
        uses
    }
}

/// What a line is, as records name the place of a secret in it.
fn place(line: &[u8]) -> String {
    match envelope::parse(line).map(|message| message.kind) {
        Ok(Kind::Answer { error: false, .. }) => "result".to_owned(),
        Ok(Kind::Answer { error: true, .. }) => "error".to_owned(),
        Ok(Kind::Notification { method } | Kind::Request { method, .. }) => {
            super::tally::excerpt(method.as_bytes())
        }
        Err(_) => "stdout".to_owned(),
    }
}

/// A text of the cell's that comes in pieces.
#[derive(Debug)]
pub(super) struct Masking {
    mask: Rc<Mask>,
    stream: Stream,
    place: &'static str,
}

impl Masking {
    /// Its stderr.
    pub(super) fn of_stderr(mask: &Rc<Mask>) -> Self {
        Self { stream: Stream::of_text(&mask.forms), mask: Rc::clone(mask), place: "stderr" }
    }

    /// A long line of its stdout.
    pub(super) fn of_line(mask: &Rc<Mask>) -> Self {
        Self { stream: Stream::of_line(&mask.forms), mask: Rc::clone(mask), place: "result" }
    }

    /// Adds to `out` what is decided by now, at the `last` piece all.
    pub(super) fn push(&mut self, piece: &[u8], last: bool, out: &mut Vec<u8>) {
        let mut hits = Vec::new();
        self.stream.push(piece, last, out, &mut hits);
        self.mask.count(&hits, self.place);
    }

    /// Exchanges a piece for what is decided by now.
    pub(super) fn exchange(&mut self, piece: &mut Vec<u8>, state: Piece) {
        let mut out = Vec::with_capacity(piece.len());
        self.push(piece, state != Piece::More, &mut out);
        *piece = out;
    }
}
