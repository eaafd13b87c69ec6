//! The record of failed authentications of a known account, handover link or enrolment code: an execution `AUTHENTICATE` that has failed.
//!
//! Invariant: what a client shows is not recorded, neither a secret nor a part of one.

use crate::{Action, ResourceType, Result, Store, WriteContext, execution::Execution, write::Write};
use futures_util::FutureExt as _;
use std::fmt::Display;
use wicketgate_model::{ApiAccountId, EnrollmentId, FrontdoorId, HandoverLinkId};

/// As which a client has tried to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthenticationSubject {
    Account(ApiAccountId),
    /// A link of a tunnel of this Frontdoor.
    Link(FrontdoorId, HandoverLinkId),
    /// A code for an agent of this Frontdoor.
    Code(FrontdoorId, EnrollmentId),
}

impl Store {
    /// In the record of the account's organization, or of the link's or the code's Frontdoor; also if the account was revoked since, which had
    /// been tried before.
    pub async fn record_failed_authentication(
        &self,
        subject: AuthenticationSubject,
        why: String,
        context: &WriteContext,
    ) -> Result<()> {
        self.write(context, move |write| {
            async move {
                match subject {
                    AuthenticationSubject::Account(id) => write.record_failed_account(id, &why).await,
                    AuthenticationSubject::Link(frontdoor, id) => {
                        write.record_failed(frontdoor, ResourceType::HandoverLink, (&id, &why)).await
                    }
                    AuthenticationSubject::Code(frontdoor, id) => {
                        write.record_failed(frontdoor, ResourceType::Enrollment, (&id, &why)).await
                    }
                }
            }
            .boxed()
        })
        .await
    }
}

impl Write {
    async fn record_failed(
        &mut self,
        frontdoor: FrontdoorId,
        resource_type: ResourceType,
        (id, why): (&(dyn Display + Sync), &str),
    ) -> Result<()> {
        let failed = Execution { fault: Some(why), ..Execution::of(resource_type, id) };
        self.record(frontdoor, Action::Authenticate, failed).await.map(drop)
    }

    async fn record_failed_account(&mut self, id: ApiAccountId, why: &str) -> Result<()> {
        let of: Option<(String,)> =
            self.tx.find("SELECT organization FROM api_account WHERE id = $1", &[&id]).await?;
        let Some((organization,)) = of else { return Ok(()) };
        let failed = Execution {
            organization: Some(&organization),
            fault: Some(why),
            ..Execution::of(ResourceType::ApiAccount, &id)
        };
        failed.insert(&mut self.tx, &self.context, None, Action::Authenticate).await.map(drop)
    }
}
