//! What a database is: its authority, the era that it is in, and the secrets of its servers.

use crate::{
    Result, Store,
    database::Database,
    row::rows,
    shared_secret::{SharedSecret, SharedSecretName, insert},
    transaction::Transaction,
};
use jiff::Timestamp;
use wicketgate_model::Era;

rows! {
    /// The row that every database has.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Installation {
        /// The fingerprint of the authority's certificate, in hexadecimal; `None`: no server of this version has used the
        /// database.
        pub authority: Option<String>,
        pub era: Era,
    }
}

impl Store {
    pub async fn installation(&self) -> Result<Installation> {
        let found = self.find("SELECT authority, era FROM installation", &[]).await?;
        found.ok_or(sqlx::Error::RowNotFound.into())
    }

    /// Whether the PostgreSQL database has the schema of this program.
    pub async fn schema_is_own(&self) -> Result<bool> {
        let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
        Ok(self.find(newest, &[]).await? == Some((Database::newest_schema(),)))
    }

    /// Whether no server has ever created anything in it.
    pub async fn is_empty(&self) -> Result<bool> {
        let any: Option<(String,)> = self.find("SELECT id FROM frontdoor LIMIT 1", &[]).await?;
        Ok(any.is_none())
    }

    /// # Errors
    /// Also if it is damaged, or sealed under a key that is not there.
    pub async fn shared_secret(&self, name: SharedSecretName) -> Result<Option<SharedSecret>> {
        let select = "SELECT name, sealed, certificate FROM shared_secret WHERE name = $1";
        self.find(select, &[&name.as_str()]).await
    }

    /// Keeps a secret, unless the database has one of this name.
    pub async fn keep_shared_secret(
        &self,
        name: SharedSecretName,
        secret: &SharedSecret,
        at: Timestamp,
    ) -> Result<()> {
        let mut tx = self.database.begin_in_turn().await?;
        insert(&mut tx, name, secret, at).await?;
        tx.commit().await
    }

    /// Makes the database that of an authority, unless it has one. `fingerprint` is that of its certificate.
    pub async fn keep_authority(
        &self,
        secret: &SharedSecret,
        fingerprint: &str,
        at: Timestamp,
    ) -> Result<()> {
        let mut tx = self.database.begin_in_turn().await?;
        keep(&mut tx, secret, fingerprint, at).await?;
        tx.commit().await
    }

    /// Gives the database another authority: no certificate of the former one is accepted any more.
    pub async fn replace_authority(
        &self,
        secret: &SharedSecret,
        fingerprint: &str,
        at: Timestamp,
    ) -> Result<()> {
        let mut tx = self.database.begin_in_turn().await?;
        tx.execute("DELETE FROM shared_secret WHERE name = $1", &[&SharedSecretName::Ca.as_str()]).await?;
        keep(&mut tx, secret, fingerprint, at).await?;
        tx.commit().await
    }
}

async fn keep(tx: &mut Transaction, secret: &SharedSecret, fingerprint: &str, at: Timestamp) -> Result<()> {
    if insert(tx, SharedSecretName::Ca, secret, at).await? {
        tx.execute("UPDATE installation SET authority = $1", &[&fingerprint]).await?;
    }
    Ok(())
}
