//! The direction from a carrier to a TCP connection.
//!
//! Invariant: decrypted bytes are written before anything else is read, so a slow reader holds one buffer.

use super::{backlog::Backlog, broken::Broken, state::RelayState};
use crate::{
    buffer::SLOTS,
    carrier::{CarrierError, poll_frame},
    frame::FrameKind,
    tls::{Incoming, Next, SLOT, TrafficKeys},
};
use socket2::SockRef;
use std::{
    array,
    future::poll_fn,
    io::{self, IoSlice},
    net::Shutdown,
    ops::Range,
    pin::Pin,
    sync::atomic::Ordering,
    task::Poll,
};
use tokio::{
    io::AsyncWrite,
    net::tcp::{ReadHalf, WriteHalf},
};
use wicketgate_system::Mutex;

/// Payloads that are written with one system call.
const GATHER: usize = 2 * SLOTS;

/// Relays from a carrier until `END`, which becomes a FIN.
pub(super) async fn from_carrier(
    carrier: &Mutex<ReadHalf<'_>>,
    input: &mut Incoming,
    keys: &TrafficKeys,
    tcp: &Mutex<WriteHalf<'_>>,
    state: &RelayState<'_>,
) -> Result<(), Broken> {
    let mut backlog = Backlog::default();
    loop {
        let (mut payloads, mut count, mut last) = ([const { 0..0 }; GATHER], 0, None);
        while count < GATHER && last.is_none() {
            let frame = match input.next(keys).map_err(Broken::carrier)? {
                Next::Plain(frame) => frame,
                Next::Wanting => break,
                Next::Closed => return Err(Broken::Carrier(CarrierError::Closed)),
            };
            match FrameKind::of(input.bytes(frame.clone())).map_err(|e| Broken::Carrier(e.into()))? {
                // The other end still delivers what was sent to it.
                (FrameKind::Data, []) => {
                    state.moved();
                }
                (FrameKind::Data, _) => {
                    payloads[count] = frame.start + 1..frame.end;
                    count += 1;
                }
                (other, _) => last = Some(other),
            }
        }
        let bytes = payloads[..count].iter().map(Range::len).sum();
        backlog.moved(bytes, state.now(), carrier.lock().as_ref(), tcp.lock().as_ref());
        if count > 0 && last == Some(FrameKind::End) {
            // The FIN that follows leaves with the last bytes, in one packet.
            let _ = SockRef::from(tcp.lock().as_ref()).set_tcp_cork(true);
        }
        write_all(tcp, input, &mut payloads[..count], state).await.map_err(Broken::Tcp)?;
        match last {
            None if count > 0 => {}
            None => {
                let most = if backlog.is_small() { SLOT } else { usize::MAX };
                fill(carrier, input, most, state).await?;
            }
            Some(FrameKind::End) => {
                input.give_back();
                let is_worn = backlog.end(tcp.lock().as_ref());
                state.is_worn.store(is_worn, Ordering::Relaxed);
                // If the connection has ended, too, closing it sends the FIN.
                if state.has_ended() {
                    return Ok(());
                }
                let tcp = tcp.lock();
                let tcp = SockRef::from(tcp.as_ref());
                tcp.shutdown(Shutdown::Write).map_err(Broken::Tcp)?;
                // The connection has been given everything: however it is closed now, the kernel delivers the rest.
                return tcp.set_linger(None).map_err(Broken::Tcp);
            }
            Some(FrameKind::Reset) => return Err(Broken::Reset),
            Some(other) => return Err(Broken::Carrier(CarrierError::Unexpected(other))),
        }
    }
}

/// Reads from the carrier. Only bytes that were waited for have just come: others may be those of an end that is gone, and
/// that a slow reader has left in the kernel.
async fn fill(
    carrier: &Mutex<ReadHalf<'_>>,
    input: &mut Incoming,
    most: usize,
    state: &RelayState<'_>,
) -> Result<(), Broken> {
    let mut waited = false;
    let n = poll_fn(|cx| {
        if state.down_rests() {
            return Poll::Pending;
        }
        let filled = input.poll_fill(&mut *carrier.lock(), most, cx);
        waited |= filled.is_pending();
        filled
    });
    if n.await.map_err(Broken::carrier)? == 0 {
        return Err(Broken::Carrier(CarrierError::Closed));
    }
    if waited {
        state.heard();
    }
    Ok(())
}

/// Writes these ranges of the input.
async fn write_all(
    tcp: &Mutex<WriteHalf<'_>>,
    input: &Incoming,
    payloads: &mut [Range<usize>],
    state: &RelayState<'_>,
) -> io::Result<()> {
    let mut at = 0;
    while at < payloads.len() {
        state.tell(|exchange| exchange.answered());
        let written = poll_fn(|cx| match &payloads[at..] {
            [one] => Pin::new(&mut *tcp.lock()).poll_write(cx, input.bytes(one.clone())),
            many => {
                let slices: [IoSlice<'_>; GATHER] = array::from_fn(|n| {
                    IoSlice::new(many.get(n).map_or(&[][..], |payload| input.bytes(payload.clone())))
                });
                Pin::new(&mut *tcp.lock()).poll_write_vectored(cx, &slices[..many.len()])
            }
        });
        let mut n = written.await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        state.counters.from_carrier.fetch_add(n as u64, Ordering::Relaxed);
        state.moved();
        state.answered.store(true, Ordering::Relaxed);
        for payload in &mut payloads[at..] {
            let of_this = n.min(payload.len());
            payload.start += of_this;
            n -= of_this;
            if payload.start < payload.end {
                break;
            }
            at += 1;
        }
    }
    Ok(())
}

/// Returns when the other end, which has sent `END`, resets the stream or is lost. An `OPEN`, which may follow as soon
/// as both have sent `END`, is kept for the next stream.
pub(super) async fn watch_carrier(
    carrier: &Mutex<ReadHalf<'_>>,
    input: &mut Incoming,
    keys: &TrafficKeys,
) -> Broken {
    let frame = match poll_fn(|cx| poll_frame(&mut *carrier.lock(), keys, input, cx)).await {
        Ok(frame) => frame,
        Err(error) => return Broken::Carrier(error),
    };
    match FrameKind::of(input.bytes(frame.clone())) {
        Ok((FrameKind::Reset, _)) => Broken::Reset,
        Ok((FrameKind::Open, _)) => {
            input.put_back(frame);
            std::future::pending().await
        }
        Ok((kind, _)) => Broken::Carrier(CarrierError::Unexpected(kind)),
        Err(error) => Broken::Carrier(error.into()),
    }
}
