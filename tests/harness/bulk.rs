//! Many bytes, each known from its place: what is lost, doubled or changed on the way is seen, without keeping any.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wicketgate_lab::Namespace;

use super::targets::serve;

/// One read or write. A multiple of a word's eight octets.
const PIECE: usize = 1 << 16;

/// Sends `size` bytes to an echo and has them come back at the same time, whole and in order.
pub(crate) fn there_and_back(stream: &TcpStream, size: u64) -> Result<()> {
    there_and_back_while(stream, size, &AtomicBool::new(false), &AtomicU64::new(0)).map(drop)
}

/// The same with more bytes for as long as `more` is so. `back` counts them, and all of them are returned.
pub(crate) fn there_and_back_while(
    stream: &TcpStream,
    size: u64,
    more: &AtomicBool,
    back: &AtomicU64,
) -> Result<u64> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, size, more));
        let received = receive(stream, back);
        if received.is_err() {
            // Nobody else ends the sender.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        let (received, sent) = (received?, sent?);
        ensure!(received == sent, "{received} bytes came back of {sent}");
        Ok(sent)
    })
}

/// Sends `size` bytes to every client, and closes.
pub(crate) fn source(namespace: &Namespace, on: SocketAddr, size: u64) -> Result<()> {
    serve(namespace, on, move |stream| drop(send(&stream, size, &AtomicBool::new(false))))
}

/// `size` bytes, which are a multiple of a piece, and more pieces.
fn send(mut stream: &TcpStream, size: u64, more: &AtomicBool) -> Result<u64> {
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    while at < size || more.load(Ordering::Acquire) {
        fill(&mut piece, at);
        stream.write_all(&piece).with_context(|| format!("after {at} bytes"))?;
        at += u64::try_from(PIECE)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(at)
}

/// That what comes is in order until its end; how much it was. `back` counts it.
pub(crate) fn receive(mut stream: &TcpStream, back: &AtomicU64) -> Result<u64> {
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
            return Ok(at);
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
