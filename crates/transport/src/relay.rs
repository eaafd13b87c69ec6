//! Moves bytes between a TCP connection and a carrier, both ways at once, until both sides have ended.
//!
//! A FIN becomes `END` and vice versa, so each side may continue after the other has finished. Any other end becomes a
//! reset. Invariants: a connection is closed in order only after the `END` or FIN of its peer, so that an aborted
//! transfer never looks complete; and no limit ends a stream while the kernel still delivers bytes of it.

mod backlog;
mod broken;
mod exchange;
mod from_carrier;
mod gather;
mod state;
#[cfg(test)]
mod tests;
mod to_carrier;
mod watch;

pub use broken::{Broken, Side};
pub use exchange::{AnswerCounters, Exchange};
pub use state::{Acknowledgements, Counters};
pub use watch::{HALF_CLOSED_IDLE, UNANSWERED};

use crate::{abort::Abort, carrier::Carrier, reset_on_drop::ResetOnDrop, tls::RecordStream};
use from_carrier::{from_carrier, watch_carrier};
use state::RelayState;
use std::{future::poll_fn, pin::pin, sync::atomic::Ordering, task::Poll, time::Duration};
use to_carrier::{to_carrier, watch_tcp};
use tokio::{net::TcpStream, time::sleep};
use watch::Watch;
use wicketgate_system::{Mutex, send_queue::send_queue};

/// How often a finished stream is looked at.
const DELIVERED_EVERY: Duration = Duration::from_millis(20);

/// What ends a stream before both of its sides do.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// A time in which no byte was relayed or delivered in either direction.
    pub idle: Option<Duration>,
    /// Nothing more is read. The stream is reset when the kernel has delivered what was read; the caller bounds that time.
    pub finish: &'a Abort,
    /// The stream is reset at once.
    pub abort: &'a Abort,
}

/// Relays until both sides have ended, and returns the carrier for the next stream, unless it is worn.
pub async fn relay(
    mut tcp: ResetOnDrop,
    mut carrier: Carrier,
    counters: Counters<'_>,
    ends: Ends<'_>,
) -> Result<Carrier, Broken> {
    let state = RelayState::new(counters);
    let end = both_ways(tcp.tcp(), &mut carrier, &state, ends).await;
    let Err(broken) = end else {
        tcp.end();
        carrier.worn = state.is_worn.load(Ordering::Relaxed);
        return Ok(carrier);
    };
    if matches!(broken, Broken::Finished) {
        tokio::select! {
            () = delivered([tcp.tcp(), &carrier.stream.tcp]) => {}
            () = ends.abort.triggered() => {}
        }
    }
    drop(tcp);
    // A RESET cannot follow an incomplete record; the missing END means the same.
    if !state.mid_record.load(Ordering::Relaxed) && !matches!(broken, Broken::Carrier(_) | Broken::Reset) {
        carrier.reset();
    }
    Err(broken)
}

/// Waits until the kernel holds nothing more for the peers of both connections, or they have ended.
async fn delivered(connections: [&TcpStream; 2]) {
    let is_delivered = |tcp: &&TcpStream| send_queue(tcp).map_or(true, |queue| queue.is_empty);
    while !connections.iter().all(is_delivered) {
        sleep(DELIVERED_EVERY).await;
    }
}

async fn both_ways(
    tcp: &mut TcpStream,
    carrier: &mut Carrier,
    state: &RelayState<'_>,
    ends: Ends<'_>,
) -> Result<(), Broken> {
    let RecordStream { tcp: wire, keys, seal, input, .. } = &mut *carrier.stream;
    let keys = &*keys;
    let (mut tcp_in, tcp_out) = tcp.split();
    let (carrier_in, mut carrier_out) = wire.split();
    // Locked for a poll, or for a look at the socket between polls: never contended.
    let (tcp_out, carrier_in) = (Mutex::new(tcp_out), Mutex::new(carrier_in));

    // A direction that has ended watches its source for a break while the other one continues. When the second has
    // ended, the stream has ended: a carrier may be closed right after that.
    let up = async {
        to_carrier(&mut tcp_in, &mut carrier_out, seal, keys, state).await?;
        state.tell(|exchange| exchange.near_ended());
        if state.end() { Ok(()) } else { Err(watch_tcp(&tcp_in).await) }
    };
    let down = async {
        from_carrier(&carrier_in, input, keys, &tcp_out, state).await?;
        state.tell(|exchange| exchange.far_ended());
        if state.end() { Ok(()) } else { Err(watch_carrier(&carrier_in, input, keys).await) }
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut abort, mut finish) = (pin!(ends.abort.triggered()), pin!(ends.finish.triggered()));
    let (mut up_first, mut watch) = (false, Watch::new(ends.idle));
    let mut timer = pin!(sleep(watch.first()));
    poll_fn(|cx| {
        loop {
            // In turns, since the first one may use up the task's budget.
            up_first = !up_first;
            for is_up in [up_first, !up_first] {
                let end: Poll<Result<(), Broken>> =
                    if is_up { up.as_mut().poll(cx) } else { down.as_mut().poll(cx) };
                if let Poll::Ready(end) = end {
                    return Poll::Ready(end);
                }
            }
            if state.is_finished() {
                return Poll::Ready(Err(Broken::Finished));
            }
            if !state.is_finishing() && finish.as_mut().poll(cx).is_ready() {
                state.finish();
                continue;
            }
            let mut delivers = false;
            while watch.poll(timer.as_mut(), state, cx).is_ready() {
                delivers |=
                    watch.look(timer.as_mut(), state, tcp_out.lock().as_ref(), carrier_in.lock().as_ref())?;
            }
            if delivers {
                state.is_delivering.store(true, Ordering::Relaxed);
                continue;
            }
            return abort.as_mut().poll(cx).map(|()| Err(Broken::Aborted));
        }
    })
    .await
}
