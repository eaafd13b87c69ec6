//! Which of the agent's connections has which gateway: a gateway takes one control connection of an agent, and the address of
//! `--server` may be that of a gateway of the list.

use std::collections::HashMap;
use tokio::sync::watch;
use wicketgate_model::GatewayId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Claims(watch::Sender<HashMap<GatewayId, usize>>);

/// The gateway is this connection's, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    gateway: GatewayId,
}

impl Claims {
    /// `None`: another connection has the gateway.
    pub(crate) fn claim(&self, gateway: GatewayId, place: usize) -> Option<Claim<'_>> {
        let is_claimed = self.0.send_if_modified(|claimed| {
            let is_free = !claimed.contains_key(&gateway);
            if is_free {
                claimed.insert(gateway, place);
            }
            is_free
        });
        is_claimed.then(|| Claim { claims: self, gateway })
    }

    pub(crate) fn is_anothers(&self, gateway: GatewayId, place: usize) -> bool {
        self.0.borrow().get(&gateway).is_some_and(|holder| *holder != place)
    }

    /// Waits until no connection has the gateway.
    pub(crate) async fn free(&self, gateway: GatewayId) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|claimed| !claimed.contains_key(&gateway)).await;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.0.send_modify(|claimed| {
            claimed.remove(&self.gateway);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn one_connection_has_a_gateway_until_it_gives_it_back() {
        let (claims, gateway) = (Claims::default(), GatewayId::new(Uuid::nil()));
        let claim = claims.claim(gateway, 1).unwrap();
        assert!(claims.claim(gateway, 2).is_none());
        assert!(claims.is_anothers(gateway, 2) && !claims.is_anothers(gateway, 1));
        let other = claims.claim(GatewayId::new(Uuid::max()), 2).unwrap();
        tokio::join!(claims.free(gateway), async { drop(claim) });
        assert!(claims.claim(gateway, 2).is_some());
        drop(other);
    }
}
