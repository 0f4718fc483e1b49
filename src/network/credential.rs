//! What a door puts into each request: the header with the secret, and the forms of it that are taken out of answers.
//!
//! Neighbours: `keep` gets the value over the cell's channel, `ended` uses it. Never: shows it, or says where it came from.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};

use crate::policy::http::Http;
use crate::secrets::redact::{Forms, Stream};
use crate::sys::wiped::Wiped;

/// One door's.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) header: HeaderName,
    pub(super) value: HeaderValue,
    forms: Arc<Forms>,
}

impl Put {
    /// With this secret; `None` if it cannot stand in a header.
    pub(super) fn new(http: &Http, secret: &[u8]) -> Option<Self> {
        let credential = http.credential.as_ref()?;
        let (before, behind) = &credential.around;
        let mut text = Wiped::with_room(before.len() + secret.len() + behind.len());
        [before.as_bytes(), secret, behind.as_bytes()].into_iter().for_each(|part| text.extend(part));
        let mut value = HeaderValue::from_bytes(&text).ok()?;
        value.set_sensitive(true);
        let name = http.destination().to_string();
        let forms = Arc::new(Forms::new([(name.as_str(), secret)]));
        Some(Self { header: HeaderName::from_bytes(credential.header.as_bytes()).ok()?, value, forms })
    }

    /// For the body of an answer.
    pub(super) fn mask(&self) -> Stream {
        Stream::of_text(&self.forms)
    }

    /// A text without it.
    pub(super) fn masked(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.forms.once(text)
    }
}
