//! Sessions of the web console: what a browser's cookie stands for. Only the SHA-256 of a session's token is stored.
//!
//! Invariant: an actor has at most [`MOST`] sessions; a further one ends the oldest.

use crate::{
    Result, Store,
    field::text_fields,
    row::{rows, specs},
    statement::Assignments,
};
use jiff::Timestamp;
use wicketgate_model::text_enum;

/// Browsers and tabs of one person, with many to spare; all people who share the admin token count as one.
const MOST: u32 = 100;

text_enum!(
    /// What a session was begun with.
    SessionKind { Admin = "ADMIN", Account = "ACCOUNT", IdentityProvider = "IDENTITY_PROVIDER" }
);
text_fields!(SessionKind);

specs! {
    /// A session to begin.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NewSession {
        pub token_sha256: [u8; 32],
        pub kind: SessionKind,
        /// As in executions.
        pub actor: String,
        /// See the migration.
        pub credential: String,
        pub scopes: Vec<String>,
        pub created_at: Timestamp,
        pub expires_at: Timestamp,
    }
}

rows! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ConsoleSession {
        pub spec: NewSession,
        /// When a person last did something with it, to the minute.
        pub used_at: Timestamp,
    }
}

impl Store {
    pub async fn begin_session(&self, new: &NewSession) -> Result<()> {
        let mut tx = self.database.begin_in_turn().await?;
        let begin = Assignments::of(new).and(&[("used_at", &new.created_at)]);
        tx.run(begin.insert("console_session", "")?).await?;
        let oldest = "DELETE FROM console_session WHERE actor = $1 AND token_sha256 NOT IN (\
                      SELECT token_sha256 FROM console_session WHERE actor = $1 \
                      ORDER BY created_at DESC, token_sha256 LIMIT $2)";
        tx.execute(oldest, &[&new.actor, &MOST]).await?;
        tx.commit().await
    }

    /// The session with this token. It may have expired.
    pub async fn session(&self, token_sha256: &[u8; 32]) -> Result<Option<ConsoleSession>> {
        self.find("SELECT * FROM console_session WHERE token_sha256 = $1", &[token_sha256]).await
    }

    pub async fn session_used(&self, token_sha256: &[u8; 32], at: Timestamp) -> Result<()> {
        let mut tx = self.database.begin().await?;
        tx.execute("UPDATE console_session SET used_at = $2 WHERE token_sha256 = $1", &[token_sha256, &at])
            .await?;
        tx.commit().await
    }

    pub async fn end_session(&self, token_sha256: &[u8; 32]) -> Result<()> {
        let mut tx = self.database.begin().await?;
        tx.execute("DELETE FROM console_session WHERE token_sha256 = $1", &[token_sha256]).await?;
        tx.commit().await
    }

    /// Ends all sessions of the actor.
    pub async fn end_sessions(&self, actor: &str) -> Result<()> {
        let mut tx = self.database.begin_in_turn().await?;
        tx.execute("DELETE FROM console_session WHERE actor = $1", &[&actor]).await?;
        tx.commit().await
    }
}
