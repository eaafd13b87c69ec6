//! Join tokens, and the join of gateways.
//!
//! A token is valid for one gateway, one hour and five tries. A gateway that repeats its request, because the answer was lost,
//! gets the same answer until the token expires. A token may name a gateway whose machine is to be replaced: its id, its location and
//! its places stay, and the epoch of its link passes, so that nothing is written any more of what the old machine reports. Its other
//! tokens end with that.
//! Invariant: without a token, no request makes the database write.

use crate::{
    Action, NewGateway, ResourceType, Result, Store, StoreError, WriteContext,
    enrollment::TRIES,
    execution::Execution,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{GatewayId, JoinRefusal, JoinTokenId, LocationId};

/// How long a token is valid.
const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

specs! {
    /// A token to create.
    #[derive(Debug, Clone)]
    pub struct NewJoinToken {
        pub id: JoinTokenId,
        pub secret_sha256: [u8; 32],
        /// Where the gateway is.
        pub location: LocationId,
        /// The gateway that is replaced; a new one is made when left out.
        pub gateway: Option<GatewayId>,
    }
}

/// A gateway's request to join.
#[derive(Debug, Clone)]
pub struct JoinAttempt {
    pub token: JoinTokenId,
    pub secret_sha256: [u8; 32],
    pub public_key_sha256: [u8; 32],
}

rows! {
    struct StoredJoinToken {
        spec: NewJoinToken,
        expires_at: Timestamp,
        /// Requests with a wrong secret.
        tries: u32,
        /// The gateway that used the token.
        used_by: Option<GatewayId>,
        public_key_sha256: Option<[u8; 32]>,
    }
}

/// The identity that a gateway has joined with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedGateway {
    pub id: GatewayId,
    pub location: LocationId,
}

/// The answer to a gateway.
type Answer = std::result::Result<JoinedGateway, JoinRefusal>;

impl Store {
    /// Returns when the token expires.
    ///
    /// # Errors
    /// [`StoreError::Missing`]: it names a gateway that was deleted, is not known, runs in a server's process, or is at another
    /// location.
    pub async fn create_join_token(&self, new: &NewJoinToken, context: &WriteContext) -> Result<Timestamp> {
        let new = new.clone();
        self.write(context, move |write| write.create_join_token(new).boxed()).await
    }

    /// Uses the token: records the gateway, with the key of its certificates. The inner result is the answer to the gateway. A wrong
    /// secret is counted.
    pub async fn join_gateway(&self, asked: &JoinAttempt, context: &WriteContext) -> Result<Answer> {
        // Anyone may send this: only a request that may succeed, or that counts as a try, occupies the writer.
        let found = self.find(BY_ID, &[&asked.token]).await?;
        if let Verdict::Refused(refusal) = verdict(found, asked, context.at) {
            return Ok(Err(refusal));
        }
        let asked = asked.clone();
        self.write(context, |write| write.join_gateway(asked).boxed()).await
    }
}

impl Write {
    async fn create_join_token(&mut self, new: NewJoinToken) -> Result<Timestamp> {
        if let Some(gateway) = new.gateway {
            let location = self.replaceable(gateway).await?;
            location.filter(|of| *of == new.location).ok_or(StoreError::Missing)?;
        }
        let expires_at = self.context.at + LIFETIME;
        let set = Assignments::of(&new).and(&[
            ("expires_at", &expires_at),
            ("tries", &0_u32),
            ("created_at", &self.context.at),
            ("created_by", &self.context.actor),
        ]);
        self.tx.run(set.insert("join_token", "")?).await?;
        self.record_of_installation(Action::Create, Execution::of(ResourceType::JoinToken, &new.id)).await?;
        Ok(expires_at)
    }

    async fn join_gateway(&mut self, asked: JoinAttempt) -> Result<Answer> {
        let found = self.tx.find(BY_ID, &[&asked.token]).await?;
        let token = match verdict(found, &asked, self.context.at) {
            Verdict::Refused(refusal) => return Ok(Err(refusal)),
            Verdict::WrongSecret => {
                let count = "UPDATE join_token SET tries = tries + 1 WHERE id = $1";
                self.tx.execute(count, &[&asked.token]).await?;
                return Ok(Err(JoinRefusal::WrongToken));
            }
            Verdict::JoinedBefore(gateway) => {
                let select = "SELECT id, location FROM gateway WHERE id = $1 AND public_key_sha256 = $2 AND deleted_at IS NULL";
                let same: Option<(GatewayId, LocationId)> =
                    self.tx.find(select, &[&gateway, &asked.public_key_sha256]).await?;
                let joined = same.map(|(id, location)| JoinedGateway { id, location });
                return Ok(joined.ok_or(JoinRefusal::Removed));
            }
            Verdict::Good(token) => token,
        };
        let location = token.location;
        let id = match token.gateway {
            None => {
                let id = GatewayId::new((self.context.fresh)());
                let new = NewGateway { id, location: location.clone(), in_process: false };
                self.register_gateway(new).await?;
                id
            }
            Some(id) if self.replaceable(id).await?.is_none() => return Ok(Err(JoinRefusal::Removed)),
            Some(id) => id,
        };
        // In this order: a link that begins at the same time looks at the key first.
        let key = &asked.public_key_sha256;
        let keep = "UPDATE gateway SET public_key_sha256 = $1 WHERE id = $2";
        self.tx.execute(keep, &[key, &id]).await?;
        if token.gateway.is_some() {
            self.end_link(id).await?;
        }
        let used = "UPDATE join_token SET used_by = $1, public_key_sha256 = $2 WHERE id = $3";
        self.tx.execute(used, &[&id, key, &asked.token]).await?;
        self.end_join_tokens(id).await?;
        // Of a replacement: the key of before opens nothing any more, which a restore has to tell.
        let action = if token.gateway.is_some() { Action::RotateKey } else { Action::Enrol };
        self.record_of_installation(action, Execution::of(ResourceType::Gateway, &id)).await?;
        Ok(Ok(JoinedGateway { id, location }))
    }

    /// Ends those of a gateway that no machine has used: the one that has is what it is now.
    pub(crate) async fn end_join_tokens(&mut self, gateway: GatewayId) -> Result<()> {
        let end = "UPDATE join_token SET expires_at = $1 WHERE gateway = $2 AND used_by IS NULL AND expires_at > $1";
        let at = self.context.at;
        self.tx.execute(end, &[&at, &gateway]).await.map(drop)
    }

    /// The location of a gateway whose machine can be replaced.
    async fn replaceable(&mut self, gateway: GatewayId) -> Result<Option<LocationId>> {
        let select = "SELECT location FROM gateway WHERE id = $1 AND in_process = 0 AND deleted_at IS NULL";
        Ok(self.tx.find(select, &[&gateway]).await?.map(|(location,)| location))
    }
}

const BY_ID: &str = "SELECT * FROM join_token WHERE id = $1";

/// How a request to join is to be answered.
enum Verdict {
    Refused(JoinRefusal),
    /// Refused, and counted as a try.
    WrongSecret,
    JoinedBefore(GatewayId),
    Good(NewJoinToken),
}

fn verdict(found: Option<StoredJoinToken>, asked: &JoinAttempt, at: Timestamp) -> Verdict {
    match found {
        None => Verdict::Refused(JoinRefusal::WrongToken),
        Some(row) if row.tries >= TRIES => Verdict::Refused(JoinRefusal::TooManyTries),
        // Both are hashes of 128 random bits: the time of the comparison reveals nothing about the secret.
        Some(row) if row.spec.secret_sha256 != asked.secret_sha256 => Verdict::WrongSecret,
        // Also for the gateway that used it: a token and a key that are found later are worth nothing.
        Some(row) if row.expires_at <= at => Verdict::Refused(JoinRefusal::Expired),
        Some(StoredJoinToken { used_by: Some(gateway), public_key_sha256, .. }) => {
            if public_key_sha256 == Some(asked.public_key_sha256) {
                Verdict::JoinedBefore(gateway)
            } else {
                Verdict::Refused(JoinRefusal::Used)
            }
        }
        Some(row) => Verdict::Good(row.spec),
    }
}
