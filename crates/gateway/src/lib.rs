//! The data plane of Wicketgate: tunnels, listeners, the balancer and the counters.

pub mod agents;
pub mod ipsec;
mod netns;
