//! What a database is: the authority that it belongs to, and the era that it is in.

use crate::{Result, Store, row::rows};
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

    /// Whether no server has ever created anything in it.
    pub async fn is_empty(&self) -> Result<bool> {
        let any: Option<(String,)> = self.find("SELECT id FROM frontdoor LIMIT 1", &[]).await?;
        Ok(any.is_none())
    }

    /// Makes the database that of this authority.
    pub async fn set_authority(&self, fingerprint: &str) -> Result<()> {
        let mut tx = self.database.begin().await?;
        tx.execute("UPDATE installation SET authority = $1", &[&fingerprint]).await?;
        tx.commit().await
    }
}
