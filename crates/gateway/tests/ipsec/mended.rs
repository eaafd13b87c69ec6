//! A part of a tunnel is removed or added from outside. The next check repairs it, and inspects only changed parts.

use std::{fs, process::Command};

use super::world::{SOON, World, desired, is_root, key, output};

/// The parts of a tunnel below IKE, as the host's tools show them.
struct Parts {
    inside: String,
    outside: String,
}

impl Parts {
    fn of(world: &World) -> Self {
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let instance = instance.trim();
        Self { inside: format!("wicketgate-{instance}-0"), outside: format!("wg{instance}-0") }
    }

    /// Runs a command in the tunnel's namespace, or in the gateway's own.
    fn run(&self, world: &World, command: &str) -> String {
        let command = command.replace("OUTSIDE", &self.outside);
        let (is_inside, command) = match command.strip_prefix("inside: ") {
            Some(command) => (true, command),
            None => (false, command.as_str()),
        };
        let inside = format!("--net=/run/netns/{}", self.inside);
        if is_inside {
            output(Command::new("nsenter").args([&inside, "sh", "-c", command]))
        } else {
            output(world.gateway.command("sh").args(["-c", command]))
        }
    }

    fn all(&self, world: &World) -> String {
        let commands = [
            "inside: ip -4 -brief addr",
            "inside: ip -4 route",
            "inside: ip -4 rule",
            "inside: ip -4 route show table 100",
            "inside: nft list ruleset",
            "inside: cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter",
            "ip -4 -brief addr show dev OUTSIDE",
        ];
        let shown = commands.map(|command| self.run(world, command)).concat();
        // Removes the interface index of the other end: a new link has another one.
        shown
            .split_inclusive('\n')
            .map(|line| match line.split_once("@if") {
                Some((name, rest)) => name.to_owned() + rest.trim_start_matches(|c: char| c.is_ascii_digit()),
                None => line.to_owned(),
            })
            .collect()
    }
}

#[test]
fn a_removed_part_is_restored_by_the_next_check() {
    if !is_root() {
        return;
    }
    World::new("mended", 0).run(|world| async move {
        let backend = world.backend().await;
        let wanted = desired(0, &[&key(0)]);
        let tunnel = backend.ensure(&wanted).await.unwrap();
        let parts = Parts::of(&world);
        // keepalived sets this option: any address can be bound then.
        parts.run(&world, "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind");
        // A link reports that it is up only after a moment.
        let whole = || Ok(Some(parts.all(&world)).filter(|all| !all.contains("DOWN")));
        let whole = world.lab.until("all links are up", SOON, whole).unwrap();
        for part in ["100.64.0.1/32", "169.254.", "default via", "table inet wicketgate"] {
            assert!(whole.contains(part), "{part}: {whole}");
        }
        // With ESP in the kernel, nothing has to be routed into the tunnel.
        let has_device = whole.contains("dev ipsec0");
        for harm in [
            "inside: ip rule del from 100.64.0.1",
            "inside: ip rule add from 100.64.0.2 lookup 100",
            "inside: ip route del default table 100",
            "inside: ip addr del 100.64.0.1/32 dev lo",
            "inside: ip addr add 100.64.0.2/32 dev lo",
            "inside: ip link set lo down",
            "inside: ip -4 addr flush dev uplink",
            "inside: ip route del default",
            "inside: ip route replace $(ip -4 route show default) mtu 1400",
            "inside: ip link set uplink down",
            "inside: ip link del uplink",
            "inside: nft flush ruleset",
            "inside: nft delete chain inet wicketgate forward",
            "inside: echo 1 > /proc/sys/net/ipv4/ip_forward",
            "inside: echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter",
            "ip -4 addr flush dev OUTSIDE",
            "ip link set OUTSIDE down",
            "ip link del OUTSIDE",
        ] {
            if (harm.contains(" rule ") || harm.contains("table 100")) && !has_device {
                continue;
            }
            // Two checks bring the tunnel to rest, as it is long after its last change.
            for _ in 0..2 {
                backend.ensure(&wanted).await.unwrap();
            }
            parts.run(&world, harm);
            assert_ne!(parts.all(&world), whole, "{harm}: the command changed nothing");
            let again = backend.ensure(&wanted).await.unwrap();
            let is_whole = || Ok((parts.all(&world) == whole).then_some(()));
            if world.lab.until("all is as it was", SOON, is_whole).is_err() {
                assert_eq!(parts.all(&world), whole, "{harm}");
            }
            // The handle, and with it the listeners, stay the same.
            assert!(std::sync::Arc::ptr_eq(&again, &tunnel), "{harm}");
        }
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}
