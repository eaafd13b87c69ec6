//! A gateway that has no SA and does not remember one, and a device without dead peer detection that still uses it.

use std::{io::Read as _, net::UdpSocket, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use wicketgate_model::ConnectionState;

use super::world::{PUBLIC, SOON, World, desired, is_root, key, serve, vpn_config, wait_for};

/// The bound of one attempt of a client; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

/// An unprotected INFORMATIONAL request of IKEv2 with INVALID_SPI, on the port of ESP: the mark of IKE, two SPIs, notify as
/// the next payload.
const INVALID_SPI: [u8; 24] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 41, 0x20, 37, 8];

#[test]
fn a_peer_that_sends_esp_to_a_lost_sa_is_told_and_called_back() {
    if !is_root() {
        return;
    }
    World::new("stray", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let wanted = desired(0, &[&key(0)]);
        let tunnel = backend.ensure(&wanted).await.unwrap();
        serve(&tunnel, "before");
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        // The gateway calls only peers that it has seen connected.
        wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        drop(tunnel);
        assert_eq!(world.talk(0, SOON).unwrap(), "before");

        // The device is not told of the end of its SAs.
        world.gateway.ip("link set w0 down").unwrap();
        backend.remove(wanted.id).await.unwrap();
        serve(&backend.ensure(&wanted).await.unwrap(), "after");
        world.gateway.ip("link set w0 up").unwrap();
        let mut received = world.sites[0]
            .namespace
            .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)))
            .unwrap()
            .unwrap();
        received.set_nonblocking(true).unwrap();
        let back = || world.talk(0, TRY).map(Some);
        assert_eq!(world.lab.until("the device is served", SOON, back).unwrap(), "after");

        let mut packet = [0; 2048];
        let mut was_told = false;
        while let Ok(length) = received.read(&mut packet) {
            // Behind the headers of IP and UDP.
            was_told |= packet[28..length].starts_with(&INVALID_SPI);
        }
        assert!(was_told, "no INVALID_SPI");
        backend.purge().await.unwrap();
    });
}

#[test]
fn forged_esp_has_no_peer_called_that_was_never_connected() {
    if !is_root() {
        return;
    }
    World::new("forged", 1).run(|world| async move {
        let backend = world.backend().await;
        backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        // Packets from the site's address that its device has not sent: an attacker forges them.
        let (esp, ike) = world.sites[0]
            .namespace
            .enter(|| {
                let bind = |port: u16| UdpSocket::bind(("203.0.0.2", port));
                (bind(4500).unwrap(), bind(500).unwrap())
            })
            .unwrap();
        esp.set_read_timeout(Some(TRY)).unwrap();
        let mut packet = [0; 2048];
        let is_told = || {
            esp.send_to(&[0xc1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], (PUBLIC, 4500))?;
            let received = esp.recv(&mut packet).ok().map(|length| packet[..length].to_vec());
            Ok(received.filter(|message| message.starts_with(&INVALID_SPI)))
        };
        world.lab.until("the gateway has received the packet", SOON, is_told).unwrap();
        // The first call would begin a second later.
        ike.set_read_timeout(Some(3 * TRY)).unwrap();
        assert!(ike.recv(&mut packet).is_err(), "the gateway calls a peer that was never connected");
        backend.purge().await.unwrap();
    });
}
