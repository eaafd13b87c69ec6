//! The guard: only packets that came through the tunnel reach a listener.

use super::world::{
    LOAD_BALANCER, PORT, SOON, World, desired, is_root, key, output, segments_in, serve, vpn_config,
};
use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn only_packets_from_the_tunnel_reach_a_listener() {
    if !is_root() {
        return;
    }
    World::new("clear", 2).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        serve(&tunnel, "first");
        let to = SocketAddr::from((LOAD_BALANCER, PORT));
        let short = Duration::from_millis(600);

        // Unencrypted, before the tunnel is up: from the site, and from the gateway's host, which routes to the link.
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let link = format!("wg{}-0", instance.trim());
        world.gateway.ip(&format!("route add {LOAD_BALANCER}/32 dev {link}")).unwrap();
        assert!(
            world.gateway.connect(to, short).is_err(),
            "an unencrypted connection of the gateway's host succeeded"
        );
        assert!(world.talk(0, short).is_err(), "an unencrypted connection of the site succeeded");
        assert_eq!(
            segments_in(&link.replace("wg", "wicketgate-")),
            0,
            "the guard passed an unencrypted segment"
        );
        // The host does not route other packets.
        let stranger = SocketAddr::from((Ipv4Addr::new(203, 0, 1, 2), PORT));
        let _open = world.sites[1].namespace.listen(stranger).unwrap();
        assert!(
            world.sites[0].namespace.connect(stranger, short).is_err(),
            "the gateway routed between sites"
        );

        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        assert!(
            world.gateway.connect(to, short).is_err(),
            "an unencrypted connection of the gateway's host succeeded"
        );

        // Through the tunnel, from a source outside the negotiated traffic selectors.
        let site = &world.sites[0].namespace;
        site.ip("addr add 10.9.9.9/32 dev lo").unwrap();
        site.ip(&format!("route add {LOAD_BALANCER}/32 dev ipsec0 src 10.9.9.9 table 219")).unwrap();
        output(
            site.command("ip").args(["rule", "add", "from", "10.9.9.9", "table", "219", "priority", "10"]),
        );
        let outside = site.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(10, 9, 9, 9), 0)).into())?;
            socket.connect_timeout(&to.into(), short)
        });
        assert!(outside.unwrap().is_err(), "a connection from outside the traffic selectors succeeded");
        backend.purge().await.unwrap();
    });
}
