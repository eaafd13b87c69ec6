//! `wicketgate secrets`: replaces what callers and servers have to know, while servers run.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use uuid::Uuid;
use wicketgate_server::{Server, auth::admin_token};
use wicketgate_store::{LOCAL_OPERATOR, WriteContext, is_of_up, replace_admin_token};
use wicketgate_system::private_file;

use crate::{
    backup::say,
    database::{self, Database},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Replace the admin token, which all servers of the database accept, by a new one. The one before is refused within five seconds,
    /// and console sessions that were opened with it end. The new one is written to the data directory's file, or printed if there is
    /// none.
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
        let context = WriteContext::new(LOCAL_OPERATOR, Timestamp::now(), Uuid::now_v7);
        replace_admin_token(&place, admin_token::sha256(&token), &context)
            .await
            .context("cannot replace the admin token in the database")?;
        let shown = file.display();
        if !has_file {
            say(token.expose_secret());
            return Ok(());
        }
        if let Err(error) = private_file::replace(&file, admin_token::line(&token).as_bytes()) {
            // Nobody else knows it.
            say(token.expose_secret());
            return Err(error).context(format!(
                "the token above is the new one, and {shown} could not be written: write it there"
            ));
        }
        say(&format!("{shown} has the new admin token. The one before is refused within five seconds"));
        Ok(())
    }
}
