//! Enrolment codes that no agent has used, as they are listed and revoked. Their secrets are nowhere.

use crate::{
    Action, ListRequest, Page, ResourceType, Result, Store, WriteContext, execution::Execution,
    list::Listing, row::rows,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{AgentId, EnrollmentId, EnvironmentId, FrontdoorId, text_enum};

rows! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct EnrollmentCodeRow {
        pub id: EnrollmentId,
        pub frontdoor: FrontdoorId,
        /// Of the environment that gets one more agent; `None`: it makes a new one.
        pub environment: Option<EnvironmentId>,
        pub expires_at: Timestamp,
        /// Requests with a wrong secret.
        pub tries: u32,
        pub created_at: Timestamp,
        pub created_by: String,
    }
}

text_enum!(
    /// Whether an agent can still enrol with a code, or a gateway join with a token.
    EnrollmentCodeState {
        Active = "ACTIVE",
        /// Its `expires_at` has passed, or it was revoked.
        Expired = "EXPIRED",
        /// It was tried too often with wrong secrets.
        Locked = "LOCKED",
    }
);

impl EnrollmentCodeRow {
    pub fn state(&self, now: Timestamp) -> EnrollmentCodeState {
        EnrollmentCodeState::of(self.tries, self.expires_at, now)
    }
}

impl EnrollmentCodeState {
    /// Of a code, or a join token, that nobody has used.
    pub(crate) fn of(tries: u32, expires_at: Timestamp, now: Timestamp) -> Self {
        match () {
            () if tries >= crate::enrollment::TRIES => Self::Locked,
            () if expires_at <= now => Self::Expired,
            () => Self::Active,
        }
    }
}

impl Store {
    /// The unused codes of a Frontdoor, also those that have expired.
    pub async fn enrollment_codes(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<EnrollmentCodeRow>> {
        self.list(&LISTING, Some((&columns::FRONTDOOR, vec![frontdoor.to_string()])), request).await
    }

    pub async fn enrollment_code(
        &self,
        frontdoor: FrontdoorId,
        id: EnrollmentId,
    ) -> Result<Option<EnrollmentCodeRow>> {
        self.find(LISTING.find("c.id = $1 AND c.frontdoor = $2"), &[&id, &frontdoor]).await
    }

    /// Ends a code: no agent can enrol with it any more. Does nothing if it has expired, or if an agent has used it, which is returned.
    pub async fn revoke_enrollment(
        &self,
        frontdoor: FrontdoorId,
        id: EnrollmentId,
        context: &WriteContext,
    ) -> Result<Option<AgentId>> {
        self.write(context, move |write| {
            async move {
                let end = "UPDATE enrollment SET expires_at = $1 \
                           WHERE id = $2 AND frontdoor = $3 AND agent IS NULL AND expires_at > $1";
                match write.tx.execute(end, &[&write.context.at, &id, &frontdoor]).await? {
                    0 => {
                        let by = "SELECT agent FROM enrollment WHERE id = $1 AND frontdoor = $2";
                        let by: Option<(Option<AgentId>,)> = write.tx.find(by, &[&id, &frontdoor]).await?;
                        Ok(by.and_then(|(agent,)| agent))
                    }
                    _ => {
                        let code = Execution::of(ResourceType::Enrollment, &id);
                        write.record(frontdoor, Action::Delete, code).await.map(|_| None)
                    }
                }
            }
            .boxed()
        })
        .await
    }
}

pub(crate) static LISTING: Listing = Listing::new("c.*", "enrollment c", "c.id").only("c.agent IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("c.id");
        FRONTDOOR = Text("c.frontdoor");
        ENVIRONMENT = Text("c.environment").optional();
        EXPIRES_AT = Time("c.expires_at");
        CREATED_AT = Time("c.created_at");
        CREATED_BY = Text("c.created_by");
    }
}
