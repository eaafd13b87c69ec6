//! A site with several CHILD SAs over the same networks, which differ in the port.

use std::time::Duration;

use wicketgate_model::ConnectionState;

use super::world::{
    INSIDE, LOAD_BALANCER, PORT, SITE, World, desired, is_root, key, serve, vpn_config, wait_for,
};

/// An answer takes milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

#[test]
fn a_child_sa_serves_after_another_over_the_same_networks_has_ended() {
    if !is_root() {
        return;
    }
    World::new("children", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        serve(&tunnel, "served");
        let child = |name: &str, port: u16| {
            format!(
                "{name} {{
    local_ts = {SITE}
    remote_ts = {LOAD_BALANCER}/32[tcp/{port}]
    esp_proposals = aes256gcm16-ecp384
  }}"
            )
        };
        let (head, tail) =
            vpn_config(0, &key(0)).split_once("net {").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let tail = tail.split_once('}').unwrap().1.to_owned();
        let both = head + &child("other", 22) + "\n  " + &child("served", PORT) + &tail;
        let site = &mut world.sites[0];
        site.start(&world.lab, &both).unwrap();
        for name in ["other", "served"] {
            site.swanctl(&["--initiate", "--child", name]).unwrap();
        }
        assert_eq!(world.talk(0, ANSWER).unwrap(), "served");

        world.sites[0].swanctl(&["--terminate", "--child", "other"]).unwrap();
        // The site's own daemon removes its route with the first CHILD SA. Here only the gateway is tested.
        let route = format!("route replace {LOAD_BALANCER}/32 dev ipsec0 src {INSIDE} table 220");
        world.sites[0].namespace.ip(&route).unwrap();
        assert_eq!(world.talk(0, ANSWER).unwrap(), "served");
        wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        backend.purge().await.unwrap();
    });
}
