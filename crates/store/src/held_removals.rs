//! Removals of very many tunnels that a gateway holds back until they are confirmed.

use crate::{Action, GatewayEpoch, ResourceType, Result, Store, WriteContext, execution::Execution};
use futures_util::FutureExt as _;
use wicketgate_model::GatewayId;

impl Store {
    /// Records how many tunnels the gateway serves whose removal it holds back. A confirmation of before has ended.
    pub async fn removals_held(&self, epoch: &GatewayEpoch, tunnels: u64) -> Result<()> {
        let gateway = epoch.gateway();
        self.settle_under(epoch, move |write| {
            async move {
                let update =
                    "UPDATE gateway_link SET held_removals = $1, removal_confirmed = 0 WHERE gateway = $2";
                write.tx.execute(update, &[&tunnels, &gateway]).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    /// Whether the gateway's operator has confirmed what it holds back.
    pub async fn is_removal_confirmed(&self, gateway: GatewayId) -> Result<bool> {
        let select = "SELECT removal_confirmed FROM gateway_link WHERE gateway = $1";
        let found: Option<(bool,)> = self.find(select, &[&gateway]).await?;
        Ok(found.is_some_and(|(confirmed,)| confirmed))
    }

    /// Confirms the removal of so many tunnels. Returns whether the gateway holds back as many, and has a link.
    pub async fn confirm_removal(
        &self,
        gateway: GatewayId,
        tunnels: u64,
        context: &WriteContext,
    ) -> Result<bool> {
        self.write(context, move |write| {
            async move {
                let confirm = "UPDATE gateway_link SET removal_confirmed = 1 \
                               WHERE gateway = $1 AND held_removals = $2 AND held_removals > 0 AND lost_at IS NULL";
                if write.tx.execute(confirm, &[&gateway, &tunnels]).await? == 0 {
                    return Ok(false);
                }
                let act = Execution::of(ResourceType::Gateway, &gateway);
                write.record_of_installation(Action::ConfirmRemoval, act).await?;
                Ok(true)
            }
            .boxed()
        })
        .await
    }
}
