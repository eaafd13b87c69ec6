//! A gateway holds back removals that may be a mistake: it is told which of them were deleted.

use tracing::{error, info};
use wicketgate_store::StoreError;

use super::Reconciler;

impl Reconciler {
    /// Answers by the rows. That a tunnel has no row is no answer: the database may be an old one, or another.
    pub(super) async fn answer_doubts(&mut self) -> Result<(), StoreError> {
        let doubtful = self.parts.view.lock().doubtful.clone();
        if doubtful.is_empty() {
            return Ok(());
        }
        let gateway = self.parts.epoch.gateway();
        let deleted = self.parts.store.deleted_tunnels(gateway, &doubtful).await?;
        let (removed, left) = (deleted.len(), doubtful.len() - deleted.len());
        // When the link is full, the next run tells it.
        if !self.outbox.confirm_removal(deleted) {
            return Ok(());
        }
        if left > 0 {
            error!(
                gateway.id = %gateway, removed, left,
                "the gateway goes on serving tunnels that this database does not know as deleted: is it the right one, and of the right \
                 time? If they are to go, stop the gateway, remove the file `desired` in its state directory, and start it again"
            );
        } else {
            info!(gateway.id = %gateway, removed, "the gateway removes very many tunnels, which were deleted");
        }
        let mut view = self.parts.view.lock();
        if view.doubtful == doubtful {
            view.doubtful.clear();
        }
        Ok(())
    }
}
