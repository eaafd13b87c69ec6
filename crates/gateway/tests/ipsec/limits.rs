//! What an authenticated site may take of its tunnel's daemon.

use std::{path::Path, process::Command, sync::Arc, time::Instant};

use wicketgate_lab::named;

use super::world::{SOON, World, desired, is_root, key, output, serve, vpn_config, wait_for};

/// More IKE SAs than a site may have at a time, each with a CHILD SA.
const OPENED: usize = 24;
const MOST: usize = 16;

/// Connections that differ, so that the device does not share an IKE SA among them, and leaves each of them open.
fn many_connections() -> String {
    let config = vpn_config(0, &key(0));
    let (before, rest) = config.split_once("wg {").unwrap();
    let (connection, secrets) = rest.split_once(" }\nsecrets").unwrap();
    let connections: String = (0..OPENED)
        .map(|n| {
            let connection = connection.replace("net {", &format!("net{n} {{"));
            format!("wg{n} {{\n  unique = never\n  rekey_time = {}s{connection}\n", 10_000 + n)
        })
        .collect();
    format!("{before}{connections} }}\nsecrets{secrets}")
}

fn ike_sas(state_dir: &Path) -> usize {
    let socket = format!("unix://{}", state_dir.join("tunnels/0/run/charon.vici").display());
    let listed = output(Command::new("swanctl").args(["--list-sas", "--uri", &socket]));
    listed.lines().filter(|line| line.contains("ESTABLISHED")).count()
}

#[test]
fn a_site_has_few_ike_sas_at_a_time_and_is_told_so() {
    if !is_root() {
        return;
    }
    World::new("limit", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        serve(&tunnel, "served");
        world.sites[0].start(&world.lab, &many_connections()).unwrap();
        let told = |c: &wicketgate_model::Connection| {
            c.last_error.as_ref().is_some_and(|error| error.cause.contains("more IKE SAs"))
        };
        let watched = Arc::clone(&tunnel);
        let told = tokio::spawn(async move {
            wait_for(&watched, "the reason", told).await;
            Instant::now()
        });
        let mut refused = None;
        for n in 0..OPENED {
            // The last ones get no answer.
            let (child, begin) = (format!("net{n}"), Instant::now());
            if world.sites[0].swanctl(&["--initiate", "--child", &child, "--timeout", "1"]).is_err() {
                refused.get_or_insert(begin);
            }
        }
        let open = ike_sas(&world.state_dir);
        assert!((2..=MOST).contains(&open), "{open}");
        named("NegotiationFailed, \"more IKE SAs\"", told.await.unwrap() - refused.unwrap());
        assert_eq!(world.talk(0, SOON).unwrap(), "served");
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}
