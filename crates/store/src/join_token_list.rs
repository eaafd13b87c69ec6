//! Join tokens that no gateway has used, as they are listed and revoked. Their secrets are nowhere.

use crate::{
    Action, EnrollmentCodeState, ListRequest, Page, ResourceType, Result, Store, WriteContext,
    execution::Execution, list::Listing, row::rows,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{GatewayId, JoinTokenId, LocationId};

rows! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct JoinTokenRow {
        pub id: JoinTokenId,
        pub location: LocationId,
        /// The gateway that is replaced; `None`: it makes a new one.
        pub gateway: Option<GatewayId>,
        pub expires_at: Timestamp,
        /// Requests with a wrong secret.
        pub tries: u32,
        pub created_at: Timestamp,
        pub created_by: String,
    }
}

impl JoinTokenRow {
    pub fn state(&self, now: Timestamp) -> EnrollmentCodeState {
        EnrollmentCodeState::of(self.tries, self.expires_at, now)
    }
}

impl Store {
    /// The unused ones, also those that have expired.
    pub async fn join_tokens(&self, request: &ListRequest) -> Result<Page<JoinTokenRow>> {
        self.list(&LISTING, None, request).await
    }

    pub async fn join_token(&self, id: JoinTokenId) -> Result<Option<JoinTokenRow>> {
        self.find(LISTING.find("j.id = $1"), &[&id]).await
    }

    /// Ends a token: no gateway can join with it any more. Does nothing if it has expired, or if a gateway has used it, which is
    /// returned.
    pub async fn revoke_join_token(
        &self,
        id: JoinTokenId,
        context: &WriteContext,
    ) -> Result<Option<GatewayId>> {
        self.write(context, move |write| {
            async move {
                let end =
                    "UPDATE join_token SET expires_at = $1 WHERE id = $2 AND used_by IS NULL AND expires_at > $1";
                let is_ended = write.tx.execute(end, &[&write.context.at, &id]).await? > 0;
                if is_ended {
                    let token = Execution::of(ResourceType::JoinToken, &id);
                    return write.record_of_installation(Action::Delete, token).await.map(|()| None);
                }
                let by: Option<(Option<GatewayId>,)> =
                    write.tx.find("SELECT used_by FROM join_token WHERE id = $1", &[&id]).await?;
                Ok(by.and_then(|(gateway,)| gateway))
            }
            .boxed()
        })
        .await
    }
}

pub(crate) static LISTING: Listing = Listing::new("j.*", "join_token j", "j.id").only("j.used_by IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("j.id");
        LOCATION = Text("j.location");
        GATEWAY = Text("j.gateway").optional();
        EXPIRES_AT = Time("j.expires_at");
        CREATED_AT = Time("j.created_at");
        CREATED_BY = Text("j.created_by");
    }
}
