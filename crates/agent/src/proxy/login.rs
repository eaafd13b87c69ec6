//! A user and a password for a proxy.

use super::refusal::Refusal;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::PathBuf;
use wicketgate_system::private_file::read_secret;

/// RFC 1929 §2 has one byte for each length.
const LONGEST: usize = 255;

#[derive(Debug, Clone)]
pub(crate) struct Login {
    user: String,
    password: Password,
}

#[derive(Debug, Clone)]
pub(crate) enum Password {
    Text(SecretString),
    /// Read for each connection, so that a new password needs no restart.
    File(PathBuf),
}

impl Password {
    pub(crate) fn new(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A login whose password was read.
pub(super) struct Credentials<'a> {
    pub(super) user: &'a str,
    pub(super) password: SecretString,
}

impl Login {
    /// `None`: it fits into no protocol. HTTP's user has no colon (RFC 7617 §2).
    pub(super) fn new(user: String, password: Password) -> Option<Self> {
        let fits = match &password {
            Password::Text(text) => text.expose_secret().len() <= LONGEST,
            Password::File(_) => true,
        };
        let is_user = (1..=LONGEST).contains(&user.len()) && !user.contains(':');
        (is_user && fits).then_some(Self { user, password })
    }

    pub(super) fn read(&self) -> Result<Credentials<'_>, Refusal> {
        let password = match &self.password {
            Password::Text(text) => text.clone(),
            Password::File(path) => {
                let text = SecretString::from(
                    read_secret(path).map_err(|e| Refusal::PasswordFile(path.clone(), e.to_string()))?,
                );
                let line = text.expose_secret().trim_end_matches(['\n', '\r']);
                if line.len() > LONGEST {
                    let fault = format!("it has more than {LONGEST} bytes");
                    return Err(Refusal::PasswordFile(path.clone(), fault));
                }
                line.into()
            }
        };
        Ok(Credentials { user: &self.user, password })
    }
}
