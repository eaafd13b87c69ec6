//! ESP by hand (RFC 4303, in UDP by RFC 3948, AES-GCM by RFC 4106), with the keys of a site's own tunnel: what a
//! remote site sends that does not keep to what was negotiated.

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

/// Far above what the site's daemon has sent: the gateway takes no number twice.
const FIRST_SEQUENCE: u32 = 10_000;

/// The next header of a tunnel's payload: IPv4.
const IPV4: u8 = 4;

const SALT: usize = 4;
const IV: usize = 8;
const HEADER: usize = 8;

/// A site's end of its tunnel, without its daemon: it sends any packet.
pub(crate) struct Esp {
    socket: UdpSocket,
    gateway: SocketAddrV4,
    out: Sa,
    inbound: Sa,
    sequence: u32,
}

/// One direction.
struct Sa {
    spi: u32,
    key: LessSafeKey,
    salt: [u8; SALT],
}

impl Esp {
    /// Kills a site's daemon, which must have logged its keys, and takes its place. The gateway does not know, until
    /// half a minute without a sign of life makes it look.
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

    /// The next inner packet that comes back, within `bound`.
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
            // Neither a keepalive, which is one octet, nor IKE, which looks whether we are alive.
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
        // Never twice with one key: the sequence is not.
        let iv = u64::from(sequence).to_be_bytes();
        let mut sealed = inner.to_vec();
        let padding = (4 - (inner.len() + 2) % 4) % 4;
        sealed.extend((1..=padding).filter_map(|n| u8::try_from(n).ok()));
        sealed.extend([u8::try_from(padding)?, IPV4]);
        let aad = Aad::from(&header[..]);
        let done = self.key.seal_in_place_append_tag(self.nonce(iv), aad, &mut sealed);
        done.ok().context("can't seal")?;
        Ok([&header[..], &iv, &sealed].concat())
    }

    fn open(&self, packet: &mut [u8]) -> Result<Vec<u8>> {
        let (header, rest) = packet.split_at_mut_checked(HEADER).context("cut short")?;
        ensure!(header[..4] == self.spi.to_be_bytes(), "ESP of another SA: {:02x?}", &header[..4]);
        let (iv, sealed) = rest.split_first_chunk_mut::<IV>().context("cut short")?;
        let opened = self.key.open_in_place(self.nonce(*iv), Aad::from(&*header), sealed);
        let (inner, trailer) = opened
            .ok()
            .context("ESP that the key does not open")?
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

/// The last key of one end in a daemon's log: a length, and below it lines of an offset and at most 16 octets.
fn key(log: &str, end: &str) -> Result<Vec<u8>> {
    let title = format!("encryption {end} key => ");
    let (_, dump) = log.rsplit_once(&title).with_context(|| format!("no key of the {end} in the log"))?;
    let mut lines = dump.lines();
    let length = lines.next().and_then(|l| l.split(' ').next()?.parse().ok()).context("no length")?;
    let mut key = Vec::new();
    while key.len() < length {
        let line = lines.next().context("a key that is cut short")?;
        let Some((_, octets)) = line.split_once("[CHD]").and_then(|(_, l)| l.split_once(": ")) else {
            continue;
        };
        for octet in octets.split_whitespace().take((length - key.len()).min(16)) {
            key.push(u8::from_str_radix(octet, 16).context("a line that is no key's")?);
        }
    }
    Ok(key)
}
