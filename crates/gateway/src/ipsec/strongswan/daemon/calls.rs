//! Calls to the peer: when to initiate, with which key, and because of what.

use std::io;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info};
use wicketgate_vici::{Client, Error};

use super::Task;
use crate::ipsec::{
    stray_esp::StrayPacket,
    strongswan::{conf::initiate, connection_view::Negotiation},
};

impl Task {
    /// Initiates, to a lost peer behind a NAT through that.
    pub(super) async fn call(&mut self, pid: i32, client: &mut Client) -> Result<(), Error> {
        let is_through_nat = self.initiation.begin(Instant::now());
        let port = self.view.nat_port.filter(|_| is_through_nat);
        if let Some(wanted) = self.wanted.clone().filter(|_| port != self.aimed_at) {
            self.answered(pid, wanted.aim(client, port)).await?;
            self.aimed_at = port;
        }
        debug!(dir = %self.home.dir.display(), port, "initiating");
        self.answered(pid, initiate(client)).await
    }

    /// During a key change the peer may have an older key: its next attempt gets the next key.
    pub(super) async fn prove_another(&mut self, pid: i32, client: &mut Client) -> Result<(), Error> {
        if let Some(wanted) = self.wanted.clone().filter(|w| w.keys.len() > 1) {
            self.proved = (self.proved + 1) % wanted.keys.len();
            let place = self.proved;
            self.answered(pid, wanted.load_key(client, place)).await?;
        }
        Ok(())
    }

    /// Decides when to initiate.
    pub(super) fn plan(&mut self) {
        let is_wanted = self.wanted.as_ref().is_some_and(|w| w.initiate);
        self.initiation.look(is_wanted, self.view.line, Instant::now());
    }

    /// The peer sends ESP to an SA that does not exist: it does not know, unless its address is forged. The SAs are read again
    /// first: one may have been made a moment ago.
    pub(super) async fn take_stray(
        &mut self,
        stray: io::Result<StrayPacket>,
        pid: i32,
        client: &mut Client,
    ) -> Result<(), Error> {
        if stray.is_ok() {
            self.look(pid, client).await?;
        }
        let answered = stray.and_then(|packet| Ok(self.strays.answer(packet)?.then_some(packet)));
        let dir = self.home.dir.display();
        let is_known = self.wanted.as_ref().is_some_and(|wanted| self.known_peers.is_known(wanted.peer));
        match answered {
            Ok(Some(packet)) if self.view.line == Negotiation::Up => {
                self.view.stray(packet, Timestamp::now());
                self.publish();
            }
            Ok(Some(packet)) if is_known && self.initiation.answer_stray(Instant::now()) => {
                let spi = format_args!("{:08x}", packet.spi);
                info!(%dir, spi, "the peer sends ESP that belongs to no SA: calling it back");
            }
            Ok(_) => {}
            Err(error) => debug!(%dir, %error, "could not answer ESP that belongs to no SA"),
        }
        self.plan();
        Ok(())
    }
}
