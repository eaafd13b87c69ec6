//! When a tunnel is watched for ESP that belongs to no SA: always, with pauses.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    ground::Namespace,
    ipsec::stray_esp::{StrayEsp, StrayPacket},
};

/// After a change of the SAs, and after each packet found, further ones do not count for this long: some are under way, and the
/// peer may be being called. The second packet is told, within 5 s of the change.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct StrayWatch {
    namespace: Namespace,
    sockets: Option<StrayEsp>,
    /// Since when to watch for packets to which address, the engine's own.
    begin: Option<(Instant, Ipv4Addr)>,
    /// The SPIs of the SAs that exist.
    existing: Vec<u32>,
}

impl StrayWatch {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, sockets: None, begin: None, existing: Vec::new() }
    }

    /// These are the SPIs of the SAs that exist.
    pub(super) fn watch(&mut self, inside: Ipv4Addr, existing: &[u32]) {
        if self.begin.is_none() || self.existing != existing {
            self.existing = existing.to_vec();
            (self.sockets, self.begin) = (None, Some((Instant::now() + PAUSE, inside)));
        }
    }

    /// There is no daemon that has been configured.
    pub(super) fn end(&mut self) {
        (self.sockets, self.begin) = (None, None);
    }

    /// Waits for a packet. After an error, the watch pauses. Cancel-safe.
    pub(super) async fn packet(&mut self) -> io::Result<StrayPacket> {
        let Some((from, inside)) = self.begin else { return std::future::pending().await };
        sleep_until(from).await;
        let received = self.receive(inside).await;
        if received.is_err() {
            self.pause();
        }
        received
    }

    /// Answers a packet, unless the SAs have changed since it came: then it may belong to a new one. The watch pauses. Returns
    /// whether it was answered.
    pub(super) fn answer(&mut self, packet: StrayPacket) -> io::Result<bool> {
        let Some(sockets) = self.sockets.take() else { return Ok(false) };
        self.pause();
        sockets.answer(packet).map(|()| true)
    }

    fn pause(&mut self) {
        self.sockets = None;
        if let Some((from, _)) = &mut self.begin {
            *from = Instant::now() + PAUSE;
        }
    }

    async fn receive(&mut self, inside: Ipv4Addr) -> io::Result<StrayPacket> {
        if self.sockets.is_none() {
            self.sockets = Some(
                StrayEsp::watch(&self.namespace, inside, self.existing.clone())
                    .await
                    .map_err(io::Error::other)?,
            );
        }
        let Some(sockets) = &self.sockets else { return std::future::pending().await };
        sockets.packet().await
    }
}
