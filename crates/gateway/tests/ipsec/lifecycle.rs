//! Setting up tunnels, recovering from a lost daemon, adoption by the next run, and tunnels without IPsec.

use super::world::{
    LOAD_BALANCER, PORT, SOON, World, charon_of, desired, is_root, key, serve, vpn_config, wait_for,
};
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use wicketgate_gateway::ipsec::{Backend, IpsecConfig, IpsecMode};
use wicketgate_model::{ConnectionState, EspMode, Generation, TunnelDesired};

#[test]
fn two_sites_with_the_same_subnet_are_kept_apart() {
    if !is_root() {
        return;
    }
    World::new("two", 2).run(|mut world| async move {
        let backend = world.backend().await;
        let started = Instant::now();
        let (first, second) = (desired(0, &[&key(0)]), desired(1, &[&key(1)]));
        let (first, second) = tokio::join!(backend.ensure(&first), backend.ensure(&second));
        let (first, second) = (first.unwrap(), second.unwrap());
        eprintln!("two tunnels were ready after {:?}", started.elapsed());
        serve(&first, "first");
        serve(&second, "second");
        assert_eq!(first.bind(PORT).unwrap_err().kind(), ErrorKind::AddrInUse);

        for n in 0..2 {
            world.sites[usize::from(n)].start(&world.lab, &vpn_config(n, &key(n))).unwrap();
            world.connect(usize::from(n));
        }
        let up = wait_for(&first, "the first is up", |c| c.state == ConnectionState::Up).await;
        let algorithms = up.algorithms.unwrap();
        assert_eq!(algorithms.ike, "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384");
        assert!(algorithms.esp.starts_with("AES_GCM_16-256"), "{}", algorithms.esp);
        wait_for(&second, "the second is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        assert_eq!(world.talk(1, SOON).unwrap(), "second");
        let closed = world.sites[0].namespace.connect((LOAD_BALANCER, PORT + 1).into(), SOON).unwrap_err();
        assert!(format!("{closed:#}").contains("refused"), "{closed:#}");
        wait_for(&first, "bytes are counted", |c| c.bytes_in > 100 && c.bytes_out > 100).await;

        // An unchanged desired state does nothing, and bound listeners stay bound.
        let again = backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        assert!(Arc::ptr_eq(&again, &first));
        assert_eq!(world.talk(0, SOON).unwrap(), "first");

        backend.remove(desired(0, &[]).id).await.unwrap();
        assert!(backend.left_over().await.unwrap().is_empty());
        assert_eq!(world.talk(1, SOON).unwrap(), "second");
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn a_cut_of_while_the_gateway_was_away_is_made_once_by_the_next_run() {
    if !is_root() {
        return;
    }
    World::new("cut", 1).run(|mut world| async move {
        let backend = world.backend().await;
        backend.ensure(&desired(0, &[&key(0)])).await.unwrap();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        drop(backend);

        // Its daemon has kept the SA meanwhile, which was made with a key that is not valid any more.
        let backend = world.backend().await;
        let generation = Generation::new(2);
        let cut = TunnelDesired { generation, cut: Some(generation), ..desired(0, &[&key(1)]) };
        backend.ensure(&cut).await.unwrap();
        let sas = || world.sites[0].swanctl(&["--list-sas"]).map(|said| said.contains("INSTALLED"));
        world.lab.until("the SA is ended", SOON, || Ok((!sas()?).then_some(()))).unwrap();
        assert!(!world.sites[0].try_connect().unwrap(), "the older key connects");
        world.sites[0].load(&vpn_config(0, &key(1))).unwrap();
        world.connect(0);
        drop(backend);

        // Neither the next run nor another change repeats it.
        let backend = world.backend().await;
        let found = backend.ensure(&cut).await.unwrap();
        wait_for(&found, "it is up", |c| c.state == ConnectionState::Up).await;
        backend.ensure(&TunnelDesired { generation: Generation::new(3), ..cut }).await.unwrap();
        assert!(sas().unwrap(), "it was cut again");
        backend.purge().await.unwrap();
    });
}

#[test]
fn a_killed_charon_is_restarted_with_its_tunnel() {
    if !is_root() {
        return;
    }
    World::new("kill", 2).run(|mut world| async move {
        let backend = world.backend().await;
        let (first, second) = (desired(0, &[&key(0)]), desired(1, &[&key(1)]));
        let (first, second) = (backend.ensure(&first).await.unwrap(), backend.ensure(&second).await.unwrap());
        serve(&first, "first");
        serve(&second, "second");
        for n in 0..2 {
            world.sites[usize::from(n)].start(&world.lab, &vpn_config(n, &key(n))).unwrap();
            world.connect(usize::from(n));
        }
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        wait_for(&first, "the first is up", |c| c.state == ConnectionState::Up).await;
        let other = wait_for(&second, "the second is up", |c| c.state == ConnectionState::Up).await.since;

        let pid = rustix::process::Pid::from_raw(charon_of(&world, 0)).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let killed = Instant::now();
        // ESP in the kernel continues without charon, so traffic alone does not show that charon is back.
        let is_back = || first.problem().is_none() && charon_of(&world, 0) != pid.as_raw_nonzero().get();
        while !is_back() || world.talk(0, Duration::from_millis(500)).is_err() {
            assert!(killed.elapsed() < SOON, "the tunnel was not restored");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!("traffic again {:?} after the charon was killed", killed.elapsed());
        wait_for(&first, "the first is up again", |c| c.state == ConnectionState::Up).await;
        assert_eq!(world.talk(0, SOON).unwrap(), "first");
        assert_eq!(world.talk(1, SOON).unwrap(), "second");
        assert_eq!(second.connection().borrow().since, other);
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

#[test]
fn the_next_run_adopts_desired_tunnels_and_removes_others() {
    if !is_root() {
        return;
    }
    World::new("adopt", 2).run(|mut world| async move {
        let backend = world.backend().await;
        let (first, second) = (desired(0, &[&key(0)]), desired(1, &[&key(1)]));
        serve(&backend.ensure(&first).await.unwrap(), "before");
        backend.ensure(&second).await.unwrap();
        world.sites[0].start(&world.lab, &vpn_config(0, &key(0))).unwrap();
        world.connect(0);
        assert_eq!(world.talk(0, SOON).unwrap(), "before");
        let charon = charon_of(&world, 0);
        let config =
            IpsecConfig { mode: IpsecMode::Auto, state_dir: world.state_dir.clone(), public_address: None };
        let refused = Backend::start(config).await.unwrap_err();
        assert!(refused.to_string().contains("another gateway is running"), "{refused}");
        drop(backend);

        let backend = world.backend().await;
        let mut left_over = backend.left_over().await.unwrap();
        left_over.sort();
        assert_eq!(left_over, [first.id, second.id]);
        // A tunnel with another network behind the peer is not adopted: its guard must change first.
        let narrowed = TunnelDesired { peer_cidr: "10.0.1.0/24".parse().unwrap(), ..first.clone() };
        assert!(backend.found(&narrowed).is_none());
        assert!(backend.found(&first).is_some());
        let tunnel = backend.ensure(&first).await.unwrap();
        assert_eq!(charon_of(&world, 0), charon);
        wait_for(&tunnel, "the adopted tunnel is up", |c| c.state == ConnectionState::Up).await;
        assert_eq!(backend.left_over().await.unwrap(), [second.id]);
        // A tunnel that is found but not desired is removed, and its namespace is released.
        let inode = |path: PathBuf| fs::metadata(path).map(|file| file.ino()).ok();
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let namespace = inode(format!("/run/netns/wicketgate-{}-1", instance.trim()).into());
        let holders = || {
            let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|fd| inode(fd.path()) == namespace).count()
        };
        assert!(backend.found(&second).is_some() && namespace.is_some() && holders() > 0);
        backend.remove(second.id).await.unwrap();
        assert_eq!(backend.left_over().await.unwrap(), []);
        assert_eq!(holders(), 0);
        assert!(
            !world.traces().iter().any(|t| t.ends_with("-1") || t.ends_with("/1")),
            "{:?}",
            world.traces()
        );
        // The old listener belongs to this process and is still bound.
        assert_eq!(world.talk(0, SOON).unwrap(), "before");

        // A charon that is found dead is restarted.
        let pid = rustix::process::Pid::from_raw(charon).unwrap();
        drop(backend);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let backend = world.backend().await;
        backend.ensure(&first).await.unwrap();
        assert_ne!(charon_of(&world, 0), charon);
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}

/// Mode `Off` uses no IPsec and needs no root.
#[tokio::test]
async fn without_ipsec_a_tunnel_is_a_loopback_address() {
    let config =
        IpsecConfig { mode: IpsecMode::Off, state_dir: PathBuf::from("/nonexistent"), public_address: None };
    let backend = Backend::start(config).await.unwrap();
    let desired = TunnelDesired { load_balancer_ip: Ipv4Addr::new(127, 77, 3, 9), ..desired(0, &[&key(0)]) };
    let tunnel = backend.ensure(&desired).await.unwrap();
    assert!(Arc::ptr_eq(&tunnel, &backend.ensure(&desired).await.unwrap()));
    let listener: TcpListener = tunnel.bind(0).unwrap();
    assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::new(127, 77, 3, 9));
    // A connection that arrives before the first `accept` has the same socket options as later ones.
    listener.set_nonblocking(false).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = socket2::SockRef::from(&accepted);
    assert_eq!(accepted.linger().unwrap(), Some(Duration::ZERO));
    assert!(accepted.tcp_nodelay().unwrap());
    assert_eq!(tunnel.connection().borrow().state, ConnectionState::Down);
    assert_eq!((backend.esp(), backend.public_address()), (EspMode::Off, None));
    backend.remove(desired.id).await.unwrap();
}
