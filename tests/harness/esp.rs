//! An ESP endpoint (RFC 4303, in UDP by RFC 3948, AES-GCM by RFC 4106) with the keys of a site's tunnel. It acts as a
//! remote site that sends packets outside the negotiated selectors.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use wicketgate_lab::Site;

/// The port of ESP and IKE in UDP.
const PORT: u16 = 4500;

/// The first sequence number: far above those that the site's daemon used, since the gateway drops repeated numbers.
const FIRST_SEQUENCE: u32 = 10_000;

/// The ESP next header value of a tunnelled IPv4 packet.
const IPV4: u8 = 4;

const SALT: usize = 4;
const IV: usize = 8;
const HEADER: usize = 8;

/// A site's end of its tunnel without an IKE daemon. It can send any packet.
pub(crate) struct Esp {
    socket: UdpSocket,
    gateway: SocketAddrV4,
    out: Sa,
    inbound: Sa,
    sequence: u32,
}

/// The SA of one direction.
struct Sa {
    spi: u32,
    key: LessSafeKey,
    salt: [u8; SALT],
}

impl Esp {
    /// Kills a site's daemon, which must have logged its keys, and takes its place. The gateway does not notice until
    /// dead peer detection starts after 30 seconds of silence.
    pub(crate) fn take_over(site: &mut Site, gateway: Ipv4Addr) -> Result<Self> {
        let list = site.swanctl(&["--list-sas"])?;
        let initiated = list.contains("_i* ");
        site.kill()?;
        let log = site.log();
        let line = log.lines().rfind(|l| l.contains(" established with SPIs "));
        let line = line.context("no CHILD SA in the log")?;
        let spi = |end: &str| {
            let word = line.split_whitespace().find_map(|w| w.strip_suffix(end));
            word.and_then(|w| u32::from_str_radix(w, 16).ok()).with_context(|| format!("no SPI{end}: {line}"))
        };
        let (ours, theirs) = if initiated { ("initiator", "responder") } else { ("responder", "initiator") };
        let out = Sa::new(spi("_o")?, &key(&log, ours)?)?;
        let inbound = Sa::new(spi("_i")?, &key(&log, theirs)?)?;
        let socket = site.namespace.enter(|| UdpSocket::bind((site.public, PORT)))?;
        let socket = socket.context("the site's port is not free")?;
        let gateway = SocketAddrV4::new(gateway, PORT);
        Ok(Self { socket, gateway, out, inbound, sequence: FIRST_SEQUENCE })
    }

    /// Sends one inner packet.
    pub(crate) fn send(&mut self, inner: &[u8]) -> Result<()> {
        self.sequence += 1;
        let packet = self.out.seal(self.sequence, inner)?;
        self.socket.send_to(&packet, self.gateway)?;
        Ok(())
    }

    /// Returns the next inner packet that arrives within `bound`.
    pub(crate) fn receive(&self, bound: Duration) -> Result<Vec<u8>> {
        let end = Instant::now() + bound;
        let mut packet = [0; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no ESP within {bound:?}");
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv(&mut packet) {
                Ok(length) => length,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e.into()),
            };
            // Skips keepalives, which are one octet, and IKE messages, which check that this end is alive.
            if length > HEADER && packet[..4] != [0; 4] {
                return self.inbound.open(&mut packet[..length]);
            }
        }
    }
}

impl Sa {
    /// RFC 4106 §8.1: the last four octets are the salt.
    fn new(spi: u32, keymat: &[u8]) -> Result<Self> {
        let (key, salt) = keymat.split_last_chunk::<SALT>().context("no salt")?;
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            n => bail!("a key of {n} octets"),
        };
        let key = UnboundKey::new(algorithm, key).ok().context("not a key")?;
        Ok(Self { spi, key: LessSafeKey::new(key), salt: *salt })
    }

    fn seal(&self, sequence: u32, inner: &[u8]) -> Result<Vec<u8>> {
        let header = [self.spi.to_be_bytes(), sequence.to_be_bytes()].concat();
        // Unique for a key, since the sequence number is.
        let iv = u64::from(sequence).to_be_bytes();
        let mut sealed = inner.to_vec();
        let padding = (4 - (inner.len() + 2) % 4) % 4;
        sealed.extend((1..=padding).filter_map(|n| u8::try_from(n).ok()));
        sealed.extend([u8::try_from(padding)?, IPV4]);
        let aad = Aad::from(&header[..]);
        let done = self.key.seal_in_place_append_tag(self.nonce(iv), aad, &mut sealed);
        done.ok().context("cannot seal")?;
        Ok([&header[..], &iv, &sealed].concat())
    }

    fn open(&self, packet: &mut [u8]) -> Result<Vec<u8>> {
        let (header, rest) = packet.split_at_mut_checked(HEADER).context("truncated")?;
        ensure!(header[..4] == self.spi.to_be_bytes(), "ESP of another SA: {:02x?}", &header[..4]);
        let (iv, sealed) = rest.split_first_chunk_mut::<IV>().context("truncated")?;
        let opened = self.key.open_in_place(self.nonce(*iv), Aad::from(&*header), sealed);
        let (inner, trailer) = opened
            .ok()
            .context("ESP that does not decrypt with the key")?
            .split_last_chunk::<2>()
            .context("empty")?;
        let inner = inner.get(..inner.len() - usize::from(trailer[0]).min(inner.len()));
        Ok(inner.context("empty")?.to_vec())
    }

    fn nonce(&self, iv: [u8; IV]) -> Nonce {
        let mut nonce = [0; SALT + IV];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The last key of one end in a daemon's log: a length, then lines with an offset and at most 16 octets.
fn key(log: &str, end: &str) -> Result<Vec<u8>> {
    let title = format!("encryption {end} key => ");
    let (_, dump) = log.rsplit_once(&title).with_context(|| format!("no key of the {end} in the log"))?;
    let mut lines = dump.lines();
    let length = lines.next().and_then(|l| l.split(' ').next()?.parse().ok()).context("no length")?;
    let mut key = Vec::new();
    while key.len() < length {
        let line = lines.next().context("the key is truncated")?;
        let Some((_, octets)) = line.split_once("[CHD]").and_then(|(_, l)| l.split_once(": ")) else {
            continue;
        };
        for octet in octets.split_whitespace().take((length - key.len()).min(16)) {
            key.push(u8::from_str_radix(octet, 16).context("a line that is not part of a key")?);
        }
    }
    Ok(key)
}
