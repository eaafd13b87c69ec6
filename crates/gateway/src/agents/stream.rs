//! An open stream.

use super::{Agents, carrier_pool::ActiveStream, roster::ShareInUse};
use std::{io, sync::atomic::Ordering, time::Duration};
use wicketgate_model::AgentId;
use wicketgate_transport::{
    carrier::Carrier,
    relay::{Broken, Counters, Ends, relay},
    reset_on_drop::ResetOnDrop,
};

/// A stream that the agent has connected to the target.
#[derive(Debug)]
pub struct Stream {
    pub(super) carrier: Carrier,
    /// The client's bytes that were sent as early data, and the error of its connection, if it has broken.
    pub(super) early: (u64, Option<io::Error>),
    pub(super) agents: Agents,
    pub(super) agent: AgentId,
    pub(super) active: ActiveStream,
    pub(super) in_use: ShareInUse,
}

impl Stream {
    /// The agent of the stream.
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// Relays between the client and the target until both have ended. A stream that breaks, is aborted or dropped, or was idle
    /// for `idle`, resets the client's connection.
    pub async fn relay(
        self,
        client: ResetOnDrop,
        counters: Counters<'_>,
        idle: Option<Duration>,
    ) -> Result<(), Broken> {
        let Self { carrier, early: (early, broken), agents, agent, active, in_use: _in_use } = self;
        counters.to_carrier.fetch_add(early, Ordering::Relaxed);
        if let Some(error) = broken {
            drop(client);
            carrier.reset();
            return Err(Broken::Tcp(error));
        }
        if let Some(exchange) = counters.exchange.filter(|_| early > 0) {
            exchange.asked();
        }
        let counters = Counters { heard: Some(&active.0.heard), ..counters };
        let ends = Ends { idle, finish: &agents.0.finish, abort: &active.0.abort };
        let end = relay(client, carrier, counters, ends).await;
        // An agent that stops resets its streams, too.
        if let (Some(exchange), Err(broken)) = (counters.exchange, &end)
            && agents.with(|roster| roster.is_well(agent))
        {
            exchange.broke(broken);
        }
        let carrier = end?;
        agents.park(agent, carrier);
        Ok(())
    }
}
