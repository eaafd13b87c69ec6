//! What a gateway observes of its tunnels and shares. An entry exists because the gateway inspected the resource.

use crate::{Connection, Generation, Problem, ShareId, TunnelId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tunnel as its gateway has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelObserved {
    /// The generation that is ready to answer the peer; `None` while there is none.
    pub ready: Option<Generation>,
    /// Why the newest generation is not ready.
    pub problem: Option<Problem>,
    pub connection: Connection,
}

/// A share as its gateway serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareObserved {
    /// The generation whose listener is bound and that a connected agent has acknowledged.
    pub ready: Option<Generation>,
    /// Why the newest generation is not ready; with a ready one, what impairs it.
    pub problem: Option<Problem>,
}

/// All that one gateway sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub tunnels: BTreeMap<TunnelId, TunnelObserved>,
    pub shares: BTreeMap<ShareId, ShareObserved>,
}

/// What a gateway reports: all of it after a reset, then what changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedDelta {
    /// The gateway has just received a reset and compared it with what is: entries that are not in this report
    /// are gone.
    pub reset: bool,
    /// With `reset`: a row that the gateway was sent and that is not in this report is as desired. It is ready at its generation and has
    /// no problem; the connection of a tunnel is down, without an error. So the report of a gateway that finds another server is short.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_desired: bool,
    pub tunnels: Vec<(TunnelId, TunnelObserved)>,
    pub shares: Vec<(ShareId, ShareObserved)>,
    /// Nothing of these is left at the gateway.
    pub gone_tunnels: Vec<TunnelId>,
    pub gone_shares: Vec<ShareId>,
}

impl ObservedDelta {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Observed {
    pub fn apply(&mut self, delta: ObservedDelta) {
        if delta.reset {
            *self = Self::default();
        }
        self.tunnels.extend(delta.tunnels);
        self.shares.extend(delta.shares);
        for id in &delta.gone_tunnels {
            self.tunnels.remove(id);
        }
        for id in &delta.gone_shares {
            self.shares.remove(id);
        }
    }
}
