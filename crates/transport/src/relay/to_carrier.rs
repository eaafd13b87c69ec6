//! The direction from a TCP connection to a carrier.
//!
//! Invariant: a record that was begun is written completely, or the carrier is unusable; `mid_record` is set meanwhile.

use super::{
    backlog::Backlog,
    broken::Broken,
    gather::{GATHER, Gather},
    state::RelayState,
};
use crate::{
    buffer::{Buffer, SLOTS},
    carrier::BARE,
    frame::{FrameKind, MAX_DATA},
    tls::{RECORD_HEADER, RecordSealer, SLOT, TrafficKeys},
};
use std::{
    array,
    future::poll_fn,
    io::{self, IoSliceMut},
    ops::Range,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf},
    net::tcp::{ReadHalf, WriteHalf},
    time::sleep,
};

/// The place of a frame's payload in its slot.
const PAYLOAD: Range<usize> = RECORD_HEADER + 1..RECORD_HEADER + 1 + MAX_DATA;

/// Relays from a TCP connection until its FIN, which becomes `END`.
pub(super) async fn to_carrier(
    tcp: &mut ReadHalf<'_>,
    carrier: &mut WriteHalf<'_>,
    seal: &mut RecordSealer,
    keys: &TrafficKeys,
    state: &RelayState<'_>,
) -> Result<(), Broken> {
    let mut buffer = Buffer::default();
    let (mut slots, mut gather, mut backlog) = (1, Gather::default(), Backlog::default());
    loop {
        let read = poll_fn(|cx| {
            if state.up_rests() {
                buffer.give_back();
                return Poll::Pending;
            }
            if state.is_delivering.swap(false, Ordering::Relaxed) {
                return Poll::Ready(Ok(None));
            }
            poll_slots(tcp, &mut buffer, slots, cx).map_ok(Some)
        });
        let read = read.await.map_err(Broken::Tcp)?;
        state.mid_record.store(true, Ordering::Relaxed);
        if let Some(update) = seal.key_update(keys).map_err(Broken::carrier)? {
            carrier.write_all(&update).await.map_err(Broken::carrier)?;
        }
        let mut n = match read {
            Some(n) if n > 0 => n,
            bare => {
                let mut frame = [0; BARE];
                frame[RECORD_HEADER] = if bare.is_some() { FrameKind::End } else { FrameKind::Data } as u8;
                seal.data(&mut frame, 1).map_err(Broken::carrier)?;
                carrier.write_all(&frame).await.map_err(Broken::carrier)?;
                state.mid_record.store(false, Ordering::Relaxed);
                match bare {
                    Some(_) => {
                        backlog.end(carrier.as_ref());
                        return Ok(());
                    }
                    None => continue,
                }
            }
        };
        let behind = look_behind(tcp, &mut buffer, slots, &mut n);
        backlog.moved(n, state.now(), tcp.as_ref(), carrier.as_ref());
        let is_end = matches!(behind, Ok(Behind::End));
        let length = seal_slots(&mut buffer, seal, n, is_end).map_err(Broken::carrier)?;
        carrier.write_all(&buffer.bytes()[..length]).await.map_err(Broken::carrier)?;
        state.mid_record.store(false, Ordering::Relaxed);
        state.counters.to_carrier.fetch_add(n as u64, Ordering::Relaxed);
        state.tell(|exchange| exchange.asked());
        let at = state.moved();
        if let Behind::End = behind.map_err(Broken::Tcp)? {
            backlog.end(carrier.as_ref());
            return Ok(());
        }
        if gather.read(n, at, state.answered.swap(false, Ordering::Relaxed)) {
            buffer.give_back();
            sleep(GATHER).await;
            slots = SLOTS;
        } else {
            slots = if n < MAX_DATA || backlog.is_small() { 1 } else { SLOTS };
        }
    }
}

/// Seals `n` bytes in as many slots as they fill, and an `END` behind them. Returns the length of the records.
fn seal_slots(buffer: &mut Buffer, seal: &mut RecordSealer, n: usize, is_end: bool) -> io::Result<usize> {
    let (mut left, mut length) = (n, 0);
    for slot in buffer.bytes_mut().chunks_mut(SLOT) {
        if left == 0 {
            break;
        }
        let of_slot = left.min(MAX_DATA);
        slot[RECORD_HEADER] = FrameKind::Data as u8;
        // All but the last are full, so there is no gap between records.
        length += seal.data(slot, 1 + of_slot)?;
        left -= of_slot;
    }
    if is_end {
        let frame = &mut buffer.bytes_mut()[length..];
        frame[RECORD_HEADER] = FrameKind::End as u8;
        length += seal.data(frame, 1)?;
    }
    Ok(length)
}

/// What follows the bytes that were read.
enum Behind {
    /// Nothing yet, or more bytes.
    Open,
    End,
}

/// Looks for the FIN behind the `n` bytes of a small answer, so that both leave in one write: many servers close right after
/// they have answered. Costs no system call unless the FIN was announced. Bytes that precede it are added to the others.
fn look_behind(tcp: &ReadHalf<'_>, buffer: &mut Buffer, slots: usize, n: &mut usize) -> io::Result<Behind> {
    if slots > 1 || *n == MAX_DATA {
        return Ok(Behind::Open);
    }
    match tcp.try_read(&mut buffer.bytes_mut()[PAYLOAD][*n..]) {
        Ok(0) => Ok(Behind::End),
        Ok(more) => {
            *n += more;
            Ok(Behind::Open)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Behind::Open),
        Err(error) => Err(error),
    }
}

/// Reads into the first `slots` slots, each at the place of its frame's payload. Returns the buffer if there is nothing
/// to read.
fn poll_slots(
    tcp: &mut ReadHalf<'_>,
    buffer: &mut Buffer,
    slots: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let read = if slots == 1 {
        let mut room = ReadBuf::new(&mut buffer.take()[PAYLOAD]);
        Pin::new(tcp).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
    } else {
        loop {
            match tcp.as_ref().poll_read_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            let mut slots = buffer.take().chunks_mut(SLOT);
            let mut room: [IoSliceMut<'_>; SLOTS] =
                array::from_fn(|_| IoSliceMut::new(slots.next().map_or(&mut [], |slot| &mut slot[PAYLOAD])));
            match tcp.try_read_vectored(&mut room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break Poll::Ready(read),
            }
        }
    };
    if read.is_pending() {
        buffer.give_back();
    }
    read
}

/// Returns when a connection that has sent its FIN is reset.
pub(super) async fn watch_tcp(tcp: &ReadHalf<'_>) -> Broken {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => Broken::Tcp(io::ErrorKind::ConnectionReset.into()),
        Err(e) => Broken::Tcp(e),
    }
}
