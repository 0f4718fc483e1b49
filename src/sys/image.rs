//! What execve(2) wants: program, arguments, environment, laid out in memory.
//!
//! Neighbours: `sys::process` executes it; `launch` makes it. Never: leaves a copy of its environment in memory.

use std::ffi::CString;
use std::ptr;

use super::environment::forget;
use super::wiped::Wiped;
use super::{Errno, Result};

/// Program, arguments and environment as execve(2) wants them, made before the process is cloned.
#[derive(Debug)]
pub struct Image {
    path: CString,
    _argv: Vec<CString>,
    envp: Vec<CString>,
    argv_pointers: Vec<*const libc::c_char>,
    envp_pointers: Vec<*const libc::c_char>,
}

impl Image {
    /// Lays out the arrays.
    ///
    /// # Errors
    /// `EINVAL` when a text holds a NUL byte.
    pub fn new(path: &str, argv: &[String], env: &[(String, String)]) -> Result<Self> {
        Self::with_secrets(path, argv, env, &[])
    }

    /// The same, with secrets in the environment, each in place of a variable of the same name.
    ///
    /// # Errors
    /// `EINVAL` when a text holds a NUL byte.
    pub fn with_secrets(
        path: &str,
        argv: &[String],
        env: &[(String, String)],
        secrets: &[(String, Wiped)],
    ) -> Result<Self> {
        let nul = |_nul| Errno(libc::EINVAL);
        let c = |text: &str| CString::new(text).map_err(nul);
        let argv: Vec<CString> = argv.iter().map(|a| c(a)).collect::<Result<_>>()?;
        let kept = env.iter().filter(|(name, _)| secrets.iter().all(|(secret, _)| secret != name));
        let mut envp: Vec<CString> = kept.map(|(k, v)| c(&format!("{k}={v}"))).collect::<Result<_>>()?;
        for (name, value) in secrets {
            if value.contains(&0) {
                return Err(Errno(libc::EINVAL));
            }
            // Room for the NUL too, so that no copy is left where it was before.
            let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
            [name.as_bytes(), b"=", value].iter().for_each(|part| entry.extend_from_slice(part));
            envp.push(CString::new(entry).map_err(nul)?);
        }
        let pointers = |list: &[CString]| {
            list.iter().map(|text| text.as_ptr()).chain(std::iter::once(ptr::null())).collect()
        };
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        Ok(Self { path: c(path)?, _argv: argv, envp, argv_pointers, envp_pointers })
    }

    /// Path, argv and envp, which live as long as this does.
    pub(super) fn pointers(
        &self,
    ) -> (*const libc::c_char, *const *const libc::c_char, *const *const libc::c_char) {
        (self.path.as_ptr(), self.argv_pointers.as_ptr(), self.envp_pointers.as_ptr())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.envp.drain(..).for_each(|entry| forget(entry.into_bytes()));
    }
}
