//! A probe of the path to a host of the site: whether large packets pass in both directions, as small ones do.
//!
//! Echo requests (RFC 792) of two sizes go through the tunnel. A host that answers nearly all of [`super::path_mtu`]'s safe size,
//! and none as large as a full segment's packet, is behind a path that drops large packets silently: a black hole. Loss by chance
//! takes both sizes alike. So does a limit of packets or bytes, since two large ones are sent for each smaller one, apart and in
//! a changing order. Where the large ones pass, the first answer ends the probe.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

/// A round has three requests, a slot apart.
const SLOT: Duration = Duration::from_millis(27);
const SLOTS: u16 = 3;

/// The longest time of a probe: of one without any answer, and of others.
const SILENT: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(2);

/// Rounds that are sent before anything was answered, and at most.
const UNANSWERED: u16 = 3;
const ROUNDS: u16 = 20;

/// Answers of the middle size that prove a black hole, beside none of twice as many large requests, if no more than so many
/// between them are missing. A line that loses so few answers large requests, too.
const PROOF: u16 = 8;
const MISSING: u16 = 2;

/// Of IP, and of ICMP's echo messages.
const IP_HEADER: u32 = 20;
const ECHO_HEADER: usize = 8;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passes,
    /// Large packets are lost, in one direction at least, and smaller ones pass.
    LargeLost,
    /// The host answers no echo request, or the line loses too many.
    Unclear,
}

/// The client of a tunnel that connected last: there is a host that uses the path.
#[derive(Debug, Default)]
pub(crate) struct LatestClient(AtomicU32);

impl LatestClient {
    pub(crate) fn set(&self, client: Ipv4Addr) {
        self.0.store(client.to_bits(), Relaxed);
    }

    pub(super) fn get(&self) -> Option<Ipv4Addr> {
        let bits = self.0.load(Relaxed);
        (bits != 0).then(|| Ipv4Addr::from_bits(bits))
    }

    pub(super) fn forget(&self) {
        self.0.store(0, Relaxed);
    }
}

/// The answers so far.
#[derive(Debug, Default)]
struct Answers {
    middle: u16,
    has_large: bool,
    /// Rounds up to the last one whose middle request was answered.
    rounds: u16,
}

impl Answers {
    fn take(&mut self, sequence: u16) {
        if is_middle(sequence) {
            self.middle += 1;
            self.rounds = self.rounds.max(sequence / SLOTS + 1);
        } else {
            self.has_large = true;
        }
    }

    /// How long to wait for further ones.
    fn longest(&self) -> Duration {
        if self.middle == 0 { SILENT } else { LONGEST }
    }

    fn outcome(&self) -> Outcome {
        if self.has_large {
            Outcome::Passes
        } else if self.middle >= PROOF && self.rounds <= self.middle + MISSING {
            Outcome::LargeLost
        } else {
            Outcome::Unclear
        }
    }
}

/// Whether a request has the middle size: one of each round, in another slot each time. The first request is a large one.
fn is_middle(sequence: u16) -> bool {
    sequence % SLOTS == SLOTS - 1 - sequence / SLOTS % SLOTS
}

/// Probes the path from `from` to `to` in the calling thread's namespace, with packets of `middle` and `large` bytes. Blocks
/// for one round trip, or up to [`LONGEST`].
pub(super) fn probe(from: Ipv4Addr, to: Ipv4Addr, middle: u32, large: u32) -> io::Result<Outcome> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.cloexec(), Some(Protocol::ICMPV4))?;
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    let to_host = SocketAddrV4::new(to, 0).into();
    // Another process of the host may have the same number; it does not send to this address.
    let id = u16::try_from(std::process::id() % 0xffff).unwrap_or_default();
    let (begin, mut answers, mut sequence) = (Instant::now(), Answers::default(), 0);
    while begin.elapsed() < answers.longest() {
        let end = Instant::now() + SLOT;
        if sequence < SLOTS * if answers.middle > 0 { ROUNDS } else { UNANSWERED } {
            let size = if is_middle(sequence) { middle } else { large };
            socket.send_to(&request(id, sequence, size), &to_host)?;
            sequence += 1;
        }
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            let mut packet = [0; 128];
            match (&socket).read(&mut packet) {
                Ok(length) => {
                    if let Some(sequence) = reply(packet.get(..length).unwrap_or_default(), to, id) {
                        answers.take(sequence);
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if answers.outcome() != Outcome::Unclear {
                return Ok(answers.outcome());
            }
        }
    }
    Ok(answers.outcome())
}

/// An echo request that makes a packet of `size` bytes.
fn request(id: u16, sequence: u16, size: u32) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend([id, sequence].map(u16::to_be_bytes).concat());
    message.resize(usize::try_from(size.saturating_sub(IP_HEADER)).unwrap_or_default().max(ECHO_HEADER), 0);
    let sum = checksum(&message);
    message.splice(2..4, sum.to_be_bytes());
    message
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let sum = words.fold(0_u32, |sum, word| sum + u32::from(word));
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

/// The sequence number of an echo reply of `host`, from a packet with its IP header.
fn reply(packet: &[u8], host: Ipv4Addr, id: u16) -> Option<u16> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let number = |at: usize| Some(u16::from_be_bytes(*packet.get(header + at..)?.first_chunk()?));
    let is_reply = packet.get(header) == Some(&ECHO_REPLY) && packet.get(12..16)? == host.octets();
    (is_reply && number(4)? == id).then_some(number(6)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The outcome if the path answers these requests.
    fn outcome(is_answered: impl Fn(u16) -> bool) -> Outcome {
        let mut answers = Answers::default();
        for sequence in (0..SLOTS * ROUNDS).filter(|sequence| is_answered(*sequence)) {
            answers.take(sequence);
            if answers.outcome() != Outcome::Unclear {
                break;
            }
        }
        answers.outcome()
    }

    #[test]
    fn only_answers_of_nearly_all_middle_requests_and_of_no_large_one_prove_a_black_hole() {
        assert_eq!(outcome(is_middle), Outcome::LargeLost);
        assert_eq!(outcome(|n| is_middle(n) && !(n / SLOTS).is_multiple_of(5)), Outcome::LargeLost);
        assert_eq!(outcome(|n| is_middle(n) && !(n / SLOTS).is_multiple_of(2)), Outcome::Unclear);
        assert_eq!(outcome(|_| false), Outcome::Unclear);
        assert_eq!(outcome(|_| true), Outcome::Passes);
    }

    proptest! {
        /// A limit passes a packet when its tokens suffice, whether it counts packets or bytes.
        #[test]
        fn a_limit_of_packets_or_bytes_is_no_black_hole(burst in 1.0..8.0_f64, refill in 0.01..3.0_f64, by_bytes: bool) {
            let (tokens, size) = (std::cell::Cell::new(burst), |n| if is_middle(n) { 1182.0 / 1400.0 } else { 1.0 });
            let passes = |n: u16| {
                let needed = if by_bytes { size(n) } else { 1.0 };
                let now = tokens.get();
                let passes = now >= needed;
                tokens.set((if passes { now - needed } else { now } + refill).min(burst));
                passes
            };
            prop_assert_eq!(outcome(passes), Outcome::Passes);
        }

        #[test]
        fn a_limit_that_is_used_up_by_others_is_no_black_hole(tokens in 0.0..1.0_f64, refill in 0.01..1.0_f64, by_bytes: bool) {
            let (tokens, size) = (std::cell::Cell::new(tokens), |n| if is_middle(n) { 1182.0 / 1400.0 } else { 1.0 });
            let passes = |n: u16| {
                let needed = if by_bytes { size(n) } else { 1.0 };
                let now = tokens.get() + refill;
                let passes = now >= needed;
                tokens.set(if passes { now - needed } else { now }.min(2.0));
                passes
            };
            prop_assert_ne!(outcome(passes), Outcome::LargeLost);
        }
    }

    #[test]
    fn a_host_that_answers_is_probed_in_one_round_trip() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: raw sockets need root");
            return;
        }
        let begin = Instant::now();
        assert_eq!(probe(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, 1182, 1400).unwrap(), Outcome::Passes);
        assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
    }

    #[test]
    fn a_request_has_its_size_and_a_right_checksum() {
        for size in [84, 1182, 1399_u32] {
            let message = request(7, 9, size);
            assert_eq!((message.len(), checksum(&message)), (size as usize - 20, 0));
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            reply(&bytes, Ipv4Addr::LOCALHOST, 0);
            checksum(&bytes);
        }
    }
}
