//! A gateway holds back removals that may be a mistake: it is told which of them were deleted.

use tracing::{error, info};
use wicketgate_store::StoreError;

use super::Reconciler;

impl Reconciler {
    /// Answers by the rows, and by what an operator has confirmed. That a tunnel has no row is no answer: the database may be an old one,
    /// or another.
    pub(super) async fn answer_doubts(&mut self) -> Result<(), StoreError> {
        let doubtful = self.parts.view.lock().doubtful.clone();
        if doubtful.is_empty() {
            return self.remove_confirmed().await;
        }
        let gateway = self.parts.epoch.gateway();
        let deleted = self.parts.store.deleted_tunnels(gateway, &doubtful).await?;
        let left: Vec<_> = doubtful.iter().filter(|id| !deleted.contains(id)).copied().collect();
        self.parts.store.removals_held(&self.parts.epoch, left.len() as u64).await?;
        // When the link is full, the next run tells it.
        let removed = deleted.len();
        if !self.outbox.confirm_removal(deleted) {
            return Ok(());
        }
        if left.is_empty() {
            info!(gateway.id = %gateway, removed, "the gateway removes very many tunnels, which were deleted");
        } else {
            error!(
                gateway.id = %gateway, removed, left = left.len(),
                "the gateway goes on serving tunnels that this database does not know as deleted: is it the right one, and of the right \
                 time? If they are to go, run `wicketgate gateway confirm-removal`"
            );
        }
        self.held = left;
        let mut view = self.parts.view.lock();
        if view.doubtful == doubtful {
            view.doubtful.clear();
        }
        Ok(())
    }

    async fn remove_confirmed(&mut self) -> Result<(), StoreError> {
        let gateway = self.parts.epoch.gateway();
        if self.held.is_empty() || !self.parts.store.is_removal_confirmed(gateway).await? {
            return Ok(());
        }
        if self.outbox.confirm_removal(self.held.clone()) {
            info!(gateway.id = %gateway, removed = self.held.len(), "an operator has confirmed the removal of tunnels");
            self.held.clear();
            self.parts.store.removals_held(&self.parts.epoch, 0).await?;
        }
        Ok(())
    }
}
