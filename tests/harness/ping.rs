//! Sends echo requests (RFC 792), each with its own mark, and collects the replies.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};
use wicketgate_lab::Namespace;

use super::packets::{Answer, Kind, echo_message};

/// The pause between two requests.
const EVERY: Duration = Duration::from_millis(10);

/// The longest wait for outstanding replies after the last request.
const LAST: Duration = Duration::from_secs(10);

/// The timeout of one read, after which the receiver checks whether it is done.
const LOOK: Duration = Duration::from_millis(100);

/// Sends at least `count` requests, and more until `done` is true. Returns how many were sent and which had no reply.
pub(crate) fn ping(
    from: &Namespace,
    source: Ipv4Addr,
    to: Ipv4Addr,
    count: u16,
    done: &AtomicBool,
) -> Result<(u16, BTreeSet<u16>)> {
    let socket = from.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))??;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.set_read_timeout(Some(LOOK))?;
    let (sent, all_sent) = (std::sync::atomic::AtomicU16::new(0), AtomicBool::new(false));
    let replied = thread::scope(|scope| {
        let receiver = scope.spawn(|| -> Result<BTreeSet<u16>> {
            let (mut replied, mut packet) = (BTreeSet::new(), [0; 256]);
            let mut end = None;
            loop {
                match (&socket).read(&mut packet) {
                    Ok(length) => match Answer::parse(&packet[..length])?.kind {
                        Kind::EchoReply(mark) => drop(replied.insert(mark)),
                        _ => continue,
                    },
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(e) => return Err(e).context("cannot read a reply"),
                }
                if all_sent.load(Ordering::Acquire) {
                    let end = end.get_or_insert_with(|| Instant::now() + LAST);
                    let all = replied.len() == usize::from(sent.load(Ordering::Acquire));
                    if all || Instant::now() > *end {
                        return Ok(replied);
                    }
                }
            }
        });
        let to = SocketAddr::from((to, 0)).into();
        let mut failed = Ok(());
        let mut mark = 0;
        while failed.is_ok() && mark < u16::MAX && (mark < count || !done.load(Ordering::Acquire)) {
            failed = socket.send_to(&echo_message(mark), &to).map(drop).context("cannot send a request");
            mark += 1;
            sent.store(mark, Ordering::Release);
            thread::sleep(EVERY);
        }
        all_sent.store(true, Ordering::Release);
        let replied = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        failed.map(|()| replied)
    })?;
    let sent = sent.into_inner();
    Ok((sent, (0..sent).filter(|mark| !replied.contains(mark)).collect()))
}
