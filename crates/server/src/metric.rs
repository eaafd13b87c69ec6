//! A metric and its entry in the registry.

use prometheus_client::registry::{Metric, Registry};

/// A new metric that the registry shows.
pub(crate) fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
