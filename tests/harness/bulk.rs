//! Many bytes, each known from its place: what is lost, doubled or changed on the way is seen, without keeping any.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wicketgate_lab::Namespace;

use super::targets::serve;

/// One read or write. A multiple of a word's eight octets.
const PIECE: usize = 1 << 16;

/// Sends `size` bytes to an echo and has them come back at the same time, whole and in order. `back` counts them.
pub(crate) fn there_and_back(stream: &TcpStream, size: u64, back: &AtomicU64) -> Result<()> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, size));
        let received = receive(stream, size, back);
        if received.is_err() {
            // Nobody else ends the sender.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        received.and(sent)
    })
}

/// Sends `size` bytes to whoever connects, and closes.
pub(crate) fn source(namespace: &Namespace, on: SocketAddr, size: u64) -> Result<()> {
    serve(namespace, on, move |stream| drop(send(&stream, size)))
}

fn send(mut stream: &TcpStream, size: u64) -> Result<()> {
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    while at < size {
        fill(&mut piece, at);
        let length = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        stream.write_all(&piece[..length]).with_context(|| format!("after {at} bytes"))?;
        at += u64::try_from(length)?;
    }
    Ok(stream.shutdown(Shutdown::Write)?)
}

/// That `size` bytes come, in order, and then the end. `back` counts them.
pub(crate) fn receive(mut stream: &TcpStream, size: u64, back: &AtomicU64) -> Result<()> {
    let (mut piece, mut wanted) = (vec![0; PIECE], vec![0; PIECE]);
    let (mut at, mut filled) = (0_u64, 0);
    loop {
        let length =
            stream.read(&mut piece[filled..]).with_context(|| format!("after {at} bytes and {filled}"))?;
        filled += length;
        if filled < PIECE && length > 0 {
            continue;
        }
        fill(&mut wanted, at);
        ensure!(piece[..filled] == wanted[..filled], "other bytes after {at}");
        at += u64::try_from(filled)?;
        back.store(at, Ordering::Release);
        if length == 0 {
            ensure!(at == size, "{at} bytes came back of {size}");
            return Ok(());
        }
        filled = 0;
    }
}

/// The bytes from `at` on, a multiple of eight (SplitMix64 of each word's number).
fn fill(piece: &mut [u8], at: u64) {
    for (word, n) in piece.chunks_exact_mut(8).zip(at / 8..) {
        let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
}
