//! Where the secret of a new account goes. The server tells a secret once, so what could prevent that it is written is found
//! before the account is created, and no interruption comes between the two.

use std::path::Path;

use serde_json::Value;
use tokio::sync::Mutex;
use wicketgate_client::{Failure, Method};
use wicketgate_system::private_file::{self, PreparedFile};

use crate::{context::Session, failed::Failed, kind::ACCOUNT, output::Output, session::text};

/// The destination of one secret.
#[derive(Debug)]
pub(crate) struct SecretOut<'a> {
    account: &'a str,
    place: Place<'a>,
}

#[derive(Debug)]
enum Place<'a> {
    File {
        path: &'a str,
        file: PreparedFile,
    },
    /// With the rest of the account.
    Standard(&'a Output),
}

impl<'a> SecretOut<'a> {
    /// `property`: how the user has named the file.
    pub(crate) fn file(account: &'a str, property: &str, path: &'a str) -> Result<Self, Failed> {
        let file = private_file::prepare(Path::new(path)).map_err(|error| {
            Failed::other(format!("{property}: {path} cannot be written: {error}\nNothing was changed."))
        })?;
        Ok(Self { account, place: Place::File { path, file } })
    }

    pub(crate) fn standard(account: &'a str, output: &'a Output) -> Self {
        Self { account, place: Place::Standard(output) }
    }

    /// Creates the account and writes its secret, while it holds `whole`. `again`: what the user would do to repeat it.
    pub(crate) async fn create(
        self,
        session: &Session,
        (list, body): (&str, &Value),
        whole: &Mutex<()>,
        again: &str,
    ) -> Result<Value, Failed> {
        let _whole = whole.lock().await;
        match session.client.write(Method::POST, list, Some(body), None).await {
            Ok(made) => self.write(&made, again).map(|()| made),
            Err(failure) => Err(self.advise(failure, again)),
        }
    }

    /// Writes the secret that a created account has.
    fn write(self, made: &Value, again: &str) -> Result<(), Failed> {
        let again = format!("run `wicketgate account delete {}`, and {again}", text(made, "clientId"));
        let Some(secret) = made["clientSecret"].as_str() else {
            return Err(Failed::other(format!("the server's answer has no clientSecret: {again}")));
        };
        let (what, written) = match self.place {
            Place::File { path, file } => {
                let written = file.write(format!("{secret}\n").as_bytes());
                (path, written.map_err(|error| error.to_string()))
            }
            // Whether all of it has arrived is unknown: a reader that has gone has no secret.
            Place::Standard(output) => {
                let printed = output.one(&ACCOUNT, made).map_err(|failed| match failed {
                    Failed::ReaderGone => "its reader has gone".to_owned(),
                    failed => failed.to_string(),
                });
                ("standard output", printed)
            }
        };
        written.map_err(|error| {
            Failed::other(format!(
                "{what} cannot be written: {error}. The account was created and its secret is lost: {again}"
            ))
        })
    }

    /// Says what to do if it is unknown whether the account exists.
    fn advise(&self, failure: Failure, again: &str) -> Failed {
        let is_unknown = failure.is_without_answer();
        let failed = Failed::from(failure);
        match is_unknown {
            true => failed.with(&format!(
                "The account may exist now, and its secret is lost: look with `wicketgate account list name={0}`, and \
                 delete it with `wicketgate account delete {0}` before you {again}.",
                self.account
            )),
            false => failed,
        }
    }
}
