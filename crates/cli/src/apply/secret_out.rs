//! The file that the secret of a new account goes to. The server tells a secret once, so what could prevent that it is written
//! is found before the account is created.

use std::path::Path;

use serde_json::Value;
use wicketgate_client::Failure;
use wicketgate_system::private_file::{self, PreparedFile};

use super::plan::Step;
use crate::{failed::Failed, session::text};

/// The destination of one secret.
#[derive(Debug)]
pub(crate) struct SecretOut<'a> {
    account: &'a str,
    path: &'a str,
    file: PreparedFile,
}

impl<'a> SecretOut<'a> {
    /// `None`: the step writes no secret.
    pub(crate) fn of(step: &'a Step) -> Result<Option<Self>, Failed> {
        let Some(path) = step.secret_file() else { return Ok(None) };
        let file = private_file::prepare(Path::new(path)).map_err(|error| {
            Failed::other(format!(
                "clientSecretFile: {path} cannot be written: {error}\nNothing was changed."
            ))
        })?;
        Ok(Some(Self { account: &step.name, path, file }))
    }

    /// Writes the secret that a created account has.
    pub(crate) fn write(self, made: &Value) -> Result<(), Failed> {
        let again = format!("run `wicketgate account delete {}`, and apply again", text(made, "clientId"));
        let Some(secret) = made["clientSecret"].as_str() else {
            return Err(Failed::other(format!("the server's answer has no clientSecret: {again}")));
        };
        self.file.write(format!("{secret}\n").as_bytes()).map_err(|error| {
            Failed::other(format!(
                "{} cannot be written: {error}. The account was created and its secret is lost: {again}",
                self.path
            ))
        })
    }

    /// Says what to do if it is unknown whether the account exists.
    pub(crate) fn advise(&self, failure: Failure) -> Failed {
        let is_unknown = failure.is_without_answer();
        let failed = Failed::from(failure);
        match is_unknown {
            true => failed.with(&format!(
                "The account may exist now, and its secret is lost: look with `wicketgate account list name={0}`, and \
                 delete it with `wicketgate account delete {0}` before you apply again.",
                self.account
            )),
            false => failed,
        }
    }
}
