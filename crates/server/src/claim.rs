//! The claim on an idempotency key that a request holds while it is carried out: from the layer that takes it to the
//! write that marks it.

use std::sync::Arc;
use wicketgate_store::Claim;

tokio::task_local! {
    static CLAIM: Arc<Claim>;
}

/// Carries out `work` with this claim.
pub(crate) async fn hold<T>(claim: Arc<Claim>, work: impl Future<Output = T>) -> T {
    CLAIM.scope(claim, work).await
}

/// Of the request that this task carries out.
pub(crate) fn held() -> Option<Arc<Claim>> {
    CLAIM.try_with(Arc::clone).ok()
}
