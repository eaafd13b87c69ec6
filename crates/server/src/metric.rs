//! Labels of metrics, and their entries in the registry.

use prometheus_client::registry::{Metric, Registry};

/// Names of labels with their values.
pub(crate) type Labels<const N: usize> = [(&'static str, String); N];

/// A new metric that the registry shows.
pub(crate) fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
