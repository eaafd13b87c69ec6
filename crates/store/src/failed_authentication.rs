//! The record of failed authentications of a known account or handover link: an execution `AUTHENTICATE` that has failed.
//!
//! Invariant: what a client shows is not recorded, neither a secret nor a part of one.

use crate::{
    Action, ApiAccountRow, ResourceType, Result, Store, WriteContext, api_account, execution::Execution,
    write::Write,
};
use futures_util::FutureExt as _;
use wicketgate_model::{ApiAccountId, FrontdoorId, HandoverLinkId};

/// As which a client has tried to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthenticationSubject {
    Account(ApiAccountId),
    /// A link of a tunnel of this Frontdoor.
    Link(FrontdoorId, HandoverLinkId),
}

impl Store {
    /// In the record of the account's organization, or of the link's Frontdoor. Does nothing for an account that was revoked.
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
                        let of = Execution::of(ResourceType::HandoverLink, &id);
                        let failed = Execution { fault: Some(&why), ..of };
                        write.record(frontdoor, Action::Authenticate, failed).await.map(drop)
                    }
                }
            }
            .boxed()
        })
        .await
    }
}

impl Write {
    async fn record_failed_account(&mut self, id: ApiAccountId, why: &str) -> Result<()> {
        let account: Option<ApiAccountRow> =
            self.tx.find(api_account::LISTING.find("c.id = $1"), &[&id]).await?;
        let Some(account) = account else { return Ok(()) };
        let failed = Execution {
            organization: Some(&account.spec.organization),
            fault: Some(why),
            ..Execution::of(ResourceType::ApiAccount, &id)
        };
        failed.insert(&mut self.tx, &self.context, None, Action::Authenticate).await.map(drop)
    }
}
