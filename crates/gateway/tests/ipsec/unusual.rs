//! Devices that are set up for another kind of connection, or cannot use theirs, and a gateway that cannot: each has its own
//! reason and cure.

use std::{fs, path::Path, process::Command, time::Instant};

use wicketgate_lab::named;
use wicketgate_model::{ConnectionFault, ConnectionState};

use super::world::{World, desired, is_root, key, output, vpn_config, wait_for};

const PSK: &str = "  local { auth = psk";

const VIRTUAL_IP: &str = "the peer asks for a virtual IP address, and the gateway assigns none: turn off mode config (a virtual or dynamic address) on the site's device, whose local network is peerCidr";
const CERTIFICATE: &str = "the peer authenticates with a certificate or a public key, and the tunnel has a pre-shared key: set the site's device to authenticate both ends with the pre-shared key";
const EAP: &str = "the peer authenticates with EAP, and the tunnel has a pre-shared key: set the site's device to authenticate both ends with the pre-shared key";
const NOT_INSTALLED: &str = "the gateway cannot use the CHILD SA: unable to install IPsec policies (SPD) in kernel: the site's device needs no change: restart the gateway with RUST_LOG=debug, and see the lines KNL of its log";
const WITHDRAWN: &str = "the peer deleted the CHILD SA as soon as it was established: its device does not use it: see its log: its kernel may have no ESP (modprobe esp4), or another of its connections has the same networks";

#[test]
fn a_device_that_is_set_up_otherwise_is_told_how() {
    if !is_root() {
        return;
    }
    World::new("unusual", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        let good = vpn_config(0, &key(0));
        world.sites[0].start(&world.lab, &good).unwrap();
        key_pair(&world.lab.path("site0/swanctl"));
        let public_key = PSK.replace("psk", "pubkey\n    pubkeys = device.pem");
        for (reason, message, method) in [
            (ConnectionFault::VirtualIpRequested, VIRTUAL_IP, format!("  vips = 0.0.0.0\n{PSK}")),
            (ConnectionFault::AuthenticationMethodDiffers, CERTIFICATE, public_key),
            (ConnectionFault::AuthenticationMethodDiffers, EAP, PSK.replace("psk", "eap")),
        ] {
            world.sites[0].load(&good.replace(PSK, &method)).unwrap();
            let begin = Instant::now();
            assert!(!world.sites[0].try_again().unwrap(), "{reason:?}");
            let is_told =
                |e: &wicketgate_model::ConnectionError| e.to_string() == message && e.reason == reason;
            let seen = wait_for(&tunnel, message, |c| c.last_error.as_ref().is_some_and(is_told)).await;
            named(reason.as_str(), begin.elapsed());
            assert_ne!(seen.state, ConnectionState::Up);
        }
        backend.purge().await.unwrap();
    });
}

/// A key pair for swanctl's directory.
fn key_pair(dir: &Path) {
    for sub in ["private", "pubkey"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let private = dir.join("private/device.pem");
    let mut generate = Command::new("openssl");
    generate.args(["genpkey", "-algorithm", "RSA", "-out"]).arg(&private);
    assert!(generate.output().unwrap().status.success());
    let mut public = Command::new("openssl");
    public.args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(dir.join("pubkey/device.pem"));
    assert!(public.output().unwrap().status.success());
}

#[test]
fn a_child_sa_that_one_end_cannot_install_is_told() {
    if !is_root() {
        return;
    }
    World::new("install", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let inside = format!("wicketgate-{}-0", instance.trim());
        if !output(Command::new("ip").args(["-n", &inside, "link"])).contains("ipsec0") {
            eprintln!("SKIPPED: a kernel with ESP installs these");
            return backend.purge().await.unwrap();
        }
        let told = |reason: ConnectionFault, message: &'static str| {
            wait_for(&tunnel, message, move |c| {
                c.last_error.as_ref().is_some_and(|e| e.reason == reason && e.to_string() == message)
            })
        };
        // The gateway's daemon cannot add its route.
        let device =
            |state: &str| output(Command::new("ip").args(["-n", &inside, "link", "set", "ipsec0", state]));
        device("down");
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        let begin = Instant::now();
        assert!(!world.sites[0].try_connect().unwrap());
        told(ConnectionFault::ChildSaNotInstalled, NOT_INSTALLED).await;
        named("ChildSaNotInstalled", begin.elapsed());
        device("up");

        // The site's kernel has no ESP.
        world.sites[0].stop().unwrap();
        world.sites[0].use_kernel_esp();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        let begin = Instant::now();
        assert!(!world.sites[0].try_connect().unwrap());
        let seen = told(ConnectionFault::ChildSaWithdrawn, WITHDRAWN).await;
        named("ChildSaWithdrawn", begin.elapsed());
        assert_ne!(seen.state, ConnectionState::Up);
        backend.purge().await.unwrap();
    });
}

#[test]
fn an_ike_sa_without_a_child_sa_is_idle() {
    if !is_root() {
        return;
    }
    World::new("idle", 1).run(|mut world| async move {
        let backend = world.backend().await;
        let tunnel = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        wait_for(&tunnel, "it is up", |c| c.state == ConnectionState::Up).await;
        let begin = Instant::now();
        world.sites[0].swanctl(&["--terminate", "--child", "net"]).unwrap();
        let seen = wait_for(&tunnel, "it is idle", |c| c.state == ConnectionState::Idle).await;
        named("Both ends are authenticated, and nothing passes.", begin.elapsed());
        assert!(seen.child_sas.is_empty(), "{seen:?}");
        world.connect(0);
        wait_for(&tunnel, "it is up again", |c| c.state == ConnectionState::Up).await;
        backend.purge().await.unwrap();
    });
}
