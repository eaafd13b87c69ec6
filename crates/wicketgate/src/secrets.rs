//! `wicketgate secrets`: replaces what callers and servers have to know, while servers run.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use wicketgate_server::{Server, auth::admin_token};
use wicketgate_store::{is_of_up, replace_admin_token};
use wicketgate_system::private_file;

use crate::{
    backup::say,
    database::{self, Database},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Replace the admin token, which all servers of the database accept, by a new one, and print it. The one before is refused within
    /// five seconds, and console sessions that were opened with it end.
    AdminToken(NewAdminToken),
}

#[derive(Debug, Args)]
pub(crate) struct NewAdminToken {
    /// The data directory of an `up` or a server. If it has the file with the token, that is replaced, too.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/wicketgate", env = "WICKETGATE_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    database: Database,
}

impl Secrets {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::AdminToken(new) => new.run().await,
        }
    }
}

impl NewAdminToken {
    async fn run(self) -> anyhow::Result<()> {
        let Self { data_dir, database } = self;
        let url = database.url()?;
        database::check(&data_dir, url.as_ref())?;
        let token = admin_token::generate()?;
        let file = Server::admin_token_file(&data_dir);
        let has_file = file.try_exists().with_context(|| format!("cannot read {}", file.display()))?;
        let place = database::place(&data_dir, url.as_ref());
        if !has_file && is_of_up(&place).await? {
            bail!(
                "{} does not exist, and the next start of `wicketgate up` would go back to the token of its file: name the \
                 data directory of `up` with --data-dir",
                file.display()
            );
        }
        replace_admin_token(&place, admin_token::sha256(&token), Timestamp::now())
            .await
            .context("cannot replace the admin token in the database")?;
        let kept = has_file.then(|| private_file::replace(&file, admin_token::line(&token).as_bytes()));
        // Also if the file cannot be written: nobody else knows it.
        say(token.expose_secret());
        kept.transpose().with_context(|| {
            format!(
                "the token above is the new one, and {} could not be written: write it there",
                file.display()
            )
        })?;
        Ok(())
    }
}
