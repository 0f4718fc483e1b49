//! The tokens of an authorization server: the section `auth.jwt` of the file of `--config`.
//!
//! Neighbours: `access` reads the rest of who may call what; `front` checks tokens by these values. Never: reads a key.

use std::path::PathBuf;

use super::super::super::path::normal;
use super::{Reader, keys};
use crate::policy::toml_file::Value;

/// Which tokens are for this server, and who they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// Who issues them, letter by letter.
    pub issuer: String,
    /// Whom they are for: this server, by the URL that clients use.
    pub audience: String,
    /// What they are signed with.
    pub keys: Keys,
    /// Whose certificates the server of the keys may have, if not those that the host trusts.
    pub ca: Option<PathBuf>,
    /// The claim that names an identity.
    pub claim: String,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// In a file.
    File(PathBuf),
    /// At an `https` address.
    Url(String),
}

impl Jwt {
    /// The audience as `SCHEME://HOST[:PORT]` and path.
    #[must_use]
    pub fn resource(&self) -> (&str, &str) {
        split(&self.audience).unwrap_or((&self.audience, ""))
    }
}

/// Origin and path of a URL without query and fragment.
fn split(url: &str) -> Option<(&str, &str)> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?.len();
    let rest = url.get(scheme..)?;
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"\\<>".contains(&byte);
    if host.is_empty() || host.contains('@') || !rest.bytes().all(plain) {
        return None;
    }
    url.split_at_checked(scheme + host.len())
}

impl Reader<'_, '_, '_> {
    pub(super) fn jwt(&mut self, value: &Value<'_>) -> Option<Jwt> {
        let table = self.file.table(value, "`[auth.jwt]`")?;
        let (mut issuer, mut audience, mut found, mut ca) = (None, None, None, None);
        let mut claim = Some("sub".to_owned());
        for (key, _, value) in self.file.entries(table, "`[auth.jwt]`", keys("auth.jwt")) {
            let name = format!("`{key}`");
            match key {
                "issuer" => issuer = self.file.line(value, &name),
                "audience" => audience = self.audience(value),
                "jwks" => found = self.jwks(value),
                "jwks-ca" => ca = self.absolute(value, &name),
                _ => claim = self.file.line(value, &name),
            }
        }
        for key in ["issuer", "audience", "jwks"] {
            if !table.contains_key(key) {
                let hint = "write `issuer`, `audience` and `jwks`; see docs/serve.md";
                self.file.mistake(&value.span(), &format!("`[auth.jwt]` has no `{key}`"), Some(hint));
            }
        }
        Some(Jwt { issuer: issuer?, audience: audience?, keys: found?, ca, claim: claim? })
    }

    fn audience(&mut self, value: &Value<'_>) -> Option<String> {
        let text = self.file.line(value, "`audience`")?;
        if split(&text).is_some() {
            return Some(text);
        }
        let hint = "write the URL that clients use, such as `https://tools.example/mcp`";
        self.file.mistake(&value.span(), "`audience` is not a URL without query and fragment", Some(hint));
        None
    }

    fn jwks(&mut self, value: &Value<'_>) -> Option<Keys> {
        let text = self.file.line(value, "`jwks`")?;
        if text.starts_with("https://") {
            return Some(Keys::Url(text));
        }
        if text.contains("://") {
            let hint = "keys are fetched by `https` alone";
            self.file.mistake(
                &value.span(),
                "`jwks` is neither an absolute path nor an `https` URL",
                Some(hint),
            );
            return None;
        }
        self.absolute(value, "`jwks`").map(Keys::File)
    }

    fn absolute(&mut self, value: &Value<'_>, name: &str) -> Option<PathBuf> {
        let text = self.file.line(value, name)?;
        match normal(&text) {
            Ok(path) => Some(path),
            Err(error) => {
                self.file.mistake(&value.span(), &format!("{name} must be an absolute path: {error}"), None);
                None
            }
        }
    }
}
