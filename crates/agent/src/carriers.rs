//! The agent's carriers: keeps as many parked as the gateway requests, and runs their streams.
//!
//! Invariant: a carrier that starts a stream is replaced at once; one whose stream did not end cleanly is not used again.
//! A fresh carrier that ends without a stream counts as a failure, so a gateway that rejects it is dialled again only
//! after a pause.

use crate::{
    connection::GatewayConnection,
    dial::dial,
    endpoint::CONNECT_WITHIN,
    health::{DialledBy, TargetInUse},
    route::NoRoute,
};
use jiff::Timestamp;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wicketgate_model::GatewayId;
use wicketgate_system::backoff::Backoff;
use wicketgate_transport::{
    carrier::Carrier,
    frame::{OpenRequest, RefusalReason, StreamRefusal},
    relay::{Broken, Counters, Ends, Side, relay},
    reset_on_drop::ResetOnDrop,
};

/// Between failed carriers.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A carrier that ends within this time of its handshake was rejected.
const FRESH: Duration = Duration::from_secs(5);
/// The most carriers, whatever a gateway requests: each is a socket and some memory here.
pub(crate) const MOST: u16 = 512;
/// Concurrent handshakes: more only delay each other, and a gateway limits them.
const AT_ONCE: usize = 16;

/// Carriers that are parked or connecting.
#[derive(Default)]
struct Parked {
    count: AtomicUsize,
    /// Of these, connecting.
    connecting: AtomicUsize,
    /// One of the counts has decreased.
    fewer: Notify,
    failed: AtomicBool,
    /// The agent's own shortage was logged, and no carrier was connected since.
    short: AtomicBool,
}

impl Parked {
    fn one_less(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.fewer.notify_one();
    }

    fn connected(&self) {
        self.connecting.fetch_sub(1, Ordering::Relaxed);
        self.fewer.notify_one();
    }
}

impl GatewayConnection {
    /// Keeps `want` carriers parked, until `end`.
    pub(crate) async fn keep_carriers(
        self: Arc<Self>,
        gateway: GatewayId,
        mut want: watch::Receiver<u16>,
        end: CancellationToken,
    ) {
        let parked = Arc::new(Parked::default());
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            if parked.failed.swap(false, Ordering::Relaxed) {
                sleep(backoff.randomized()).await;
            } else if parked.count.load(Ordering::Relaxed) > 0 {
                backoff.reset();
            }
            let wanted = usize::from((*want.borrow_and_update()).min(MOST));
            while parked.count.load(Ordering::Relaxed) < wanted
                && parked.connecting.load(Ordering::Relaxed) < AT_ONCE
            {
                parked.connecting.fetch_add(1, Ordering::Relaxed);
                parked.count.fetch_add(1, Ordering::Relaxed);
                let carrier = Arc::clone(&self).one_carrier(gateway, Arc::clone(&parked), end.clone());
                // Of the gateway's, and of all.
                self.agent.streams.spawn(self.streams.track_future(carrier));
            }
            tokio::select! {
                () = parked.fewer.notified() => {}
                changed = want.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One carrier, from its handshake to its end. The caller has counted it as parked.
    async fn one_carrier(self: Arc<Self>, gateway: GatewayId, parked: Arc<Parked>, end: CancellationToken) {
        // Boxed: the state of a handshake is large, and the carrier lives long after it.
        let connected = end.run_until_cancelled(Box::pin(self.connect_carrier())).await;
        parked.connected();
        let mut carrier = match connected {
            Some(Ok(carrier)) => carrier,
            failed => {
                if let Some(Err(error)) = failed {
                    debug!(error = format!("{error:#}"), "cannot connect a carrier");
                    let shortage = error.downcast_ref().and_then(NoRoute::shortage);
                    if let Some(error) = shortage.filter(|_| !parked.short.swap(true, Ordering::Relaxed)) {
                        warn!(%error, "cannot open a carrier to the gateway");
                    }
                    parked.failed.store(true, Ordering::Relaxed);
                }
                return parked.one_less();
            }
        };
        parked.short.store(false, Ordering::Relaxed);
        let mut fresh = Some(Instant::now());
        loop {
            let open = tokio::select! {
                biased;
                () = end.cancelled() => {
                    parked.one_less();
                    return carrier.close();
                }
                open = carrier.next_open() => open,
            };
            let made = fresh.take();
            if open.is_err() && made.is_some_and(|at| at.elapsed() < FRESH) {
                parked.failed.store(true, Ordering::Relaxed);
            }
            parked.one_less();
            let open = match open {
                Ok(open) => open,
                Err(error) => return debug!(error = ?error, "a parked carrier ended"),
            };
            match self.stream(gateway, open, carrier).await {
                Some(back) if back.is_worn() => return back.close(),
                Some(back) => carrier = back,
                None => return,
            }
            parked.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn connect_carrier(&self) -> anyhow::Result<Carrier> {
        let tcp = self.route.connect().await?;
        Ok(timeout(CONNECT_WITHIN, self.tls.connect_carrier(tcp)).await??)
    }

    /// Runs one stream. Returns the carrier if it can be used again.
    async fn stream(&self, gateway: GatewayId, open: OpenRequest, mut carrier: Carrier) -> Option<Carrier> {
        let agent = &self.agent;
        let (tcp, mut in_use) = match self.dial_for(gateway, &open).await {
            Ok(dialled) => dialled,
            Err(refusal) => {
                debug!(share.id = %open.share, reason = %refusal, "a stream was refused");
                agent.status.refused(refusal.reason);
                return carrier.answer(Err(&refusal)).await.ok().map(|()| carrier);
            }
        };
        if let Err(error) = carrier.answer(Ok(())).await {
            debug!(share.id = %open.share, error = ?error, "a carrier broke before its stream began");
            return None;
        }
        let _active = agent.status.stream_began();
        let (sent, received) = agent.status.bytes();
        let bytes = Counters::of_bytes(sent, received);
        let counters = Counters { acknowledgements: Some(&in_use), ..bytes };
        let ends = Ends { idle: None, finish: &agent.finish, abort: &agent.abort };
        let relayed = tokio::select! {
            relayed = relay(tcp, carrier, counters, ends) => relayed,
            () = agent.assignments.expired(open.share) => {
                agent.status.stream_broke();
                warn!(share.id = %open.share, "a stream was cut: the assignment of its share has expired");
                return None;
            }
        };
        match relayed {
            Ok(carrier) => Some(carrier),
            Err(broken) => {
                if matches!(broken, Broken::Unanswered(Side::Connection)) {
                    in_use.lost();
                }
                agent.status.stream_broke();
                debug!(share.id = %open.share, reason = ?broken, "a stream broke");
                None
            }
        }
    }

    async fn dial_for(
        &self,
        gateway: GatewayId,
        open: &OpenRequest,
    ) -> Result<(ResetOnDrop, TargetInUse<'_>), StreamRefusal> {
        let agent = &self.agent;
        let asked = (open.share, open.generation);
        let Some(target) = agent.assignments.target(gateway, asked, Timestamp::now()) else {
            let text = "the agent does not serve the share".to_owned();
            return Err(StreamRefusal { reason: RefusalReason::NotAssigned, text });
        };
        let allow = Arc::clone(&agent.assignments.allow.borrow());
        let dialled = dial(&target, &allow, &self.route.names).await;
        agent.health.record(&target, dialled.as_ref().map(drop), DialledBy::Stream, Instant::now());
        Ok((ResetOnDrop::new(dialled?), agent.health.in_use(target)))
    }
}
