//! A site with several CHILD SAs over the same networks, which differ in the port.

use std::time::Duration;

use wicketgate_model::{ChildSa, Connection, ConnectionState};

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
        let both = head + &child("other", 9222) + "\n  " + &child("served", PORT) + &tail;
        let site = &mut world.sites[0];
        site.start(&world.lab, &both).unwrap();
        for name in ["other", "served"] {
            site.swanctl(&["--initiate", "--child", name]).unwrap();
        }
        assert_eq!(world.talk(0, ANSWER).unwrap(), "served");
        // Each is shown with what was agreed; one that is rekeyed goes on, and the other is not changed by it.
        let rekeys = |connection: &Connection| -> Vec<_> {
            let shown = |c: &ChildSa| (c.selectors.gateway.concat(), c.selectors.peer.concat(), c.rekeys);
            connection.child_sas.iter().map(shown).collect()
        };
        let expected = |rekeys: u32| {
            let gateway = |port: &str| format!("{LOAD_BALANCER}/32[tcp/{port}]");
            [(gateway("8443"), rekeys), (gateway("9222"), 0)]
                .map(|(gateway, rekeys)| (gateway, SITE.to_owned(), rekeys))
                .to_vec()
        };
        let before = wait_for(&tunnel, "both are shown", |c| rekeys(c) == expected(0)).await;
        world.sites[0].swanctl(&["--rekey", "--child", "served"]).unwrap();
        let after = wait_for(&tunnel, "one was rekeyed", |c| rekeys(c) == expected(1)).await;
        assert_eq!(
            before.child_sas.iter().map(|c| c.since).collect::<Vec<_>>(),
            after.child_sas.iter().map(|c| c.since).collect::<Vec<_>>()
        );
        let carried = |c: &Connection| c.child_sas.iter().map(|c| c.bytes_in > 0).collect::<Vec<_>>();
        assert_eq!(carried(&after), [true, false], "{after:?}");

        world.sites[0].swanctl(&["--terminate", "--child", "other"]).unwrap();
        // The site's own daemon removes its route with the first CHILD SA. Here only the gateway is tested.
        let route = format!("route replace {LOAD_BALANCER}/32 dev ipsec0 src {INSIDE} table 220");
        world.sites[0].namespace.ip(&route).unwrap();
        assert_eq!(world.talk(0, ANSWER).unwrap(), "served");
        wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        backend.purge().await.unwrap();
    });
}
