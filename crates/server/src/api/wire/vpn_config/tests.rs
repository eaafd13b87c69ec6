//! Snapshots of each device's file, and a property test that no key can break out of its quotes.

use super::{
    device_reader::{REFUSE_KEYS, config, gateway_at, strongswan_peers, taken_out},
    devices::DEVICES,
    *,
};
use proptest::prelude::*;
use std::{path::PathBuf, process::Command};

/// The devices that support only addresses as identities.
const ONLY_ADDRESSES: &[&str] = &["cisco-asa", "aws"];

/// An identity of each type; and two that read like one of another type.
const IDENTITIES: &[&str] = &[
    "203.0.113.1",
    "router.example.org",
    "vpn@example.org",
    "fqdn:203.0.113.1",
    "fqdn:vpn@example.org",
    "email:office-9",
    "keyid:office-7",
    "dn:C=DE, O=An Office, CN=fw7",
];

/// The devices that support the group x25519.
const X25519: &[&str] = &["strongswan", "libreswan", "fortinet", "pfsense", "vyos"];

/// A key with every character that is special to some device.
const HOSTILE: &str = r#"0x"quoted' $(id) `id` # ! \ & <b> ; | ? %"#;

fn plain() -> VpnConfig {
    config("customer-a", "203.0.113.1", "Akey_of.letters0digits.and_nothing.else42")
}

fn shown(device: &str, config: &VpnConfig) -> String {
    render(device, config).unwrap().unwrap_or_else(|why| format!("refused: {why}\n"))
}

fn narrowed(mut config: VpnConfig, ike: &[&str], esp: &[&str]) -> VpnConfig {
    let parsed = ike.iter().map(|p| p.parse().unwrap()).collect::<Vec<_>>();
    config.ike.proposals = IkeProposals::try_from(parsed).unwrap();
    let parsed = esp.iter().map(|p| p.parse().unwrap()).collect::<Vec<_>>();
    config.esp.proposals = EspProposals::try_from(parsed).unwrap();
    config
}

/// One snapshot per device with three tunnels: the defaults; a name that must be shortened, a host name as the
/// identity and few proposals; and a hostile key.
#[test]
fn each_device_gets_its_configuration() {
    let name = format!("a--{}", "long-".repeat(11) + "name");
    let few = narrowed(
        config(&name, "router.example.org", "Akey_of.letters0digits.and_nothing.else42"),
        &["aes128-sha256-ecp256", "aes256-sha512-modp2048"],
        &["aes128gcm16-ecp256", "aes128-sha256-ecp256", "aes256-sha512-modp2048"],
    );
    let hostile = |device| {
        let id = if ONLY_ADDRESSES.contains(&device) { "203.0.113.1" } else { "vpn@example.org" };
        config("customer-a", id, HOSTILE)
    };
    insta::with_settings!({omit_expression => true}, {
        for device in DEVICES.iter().map(|d| d.format) {
            let all = [&plain(), &few, &hostile(device)].map(|config| shown(device, config));
            insta::assert_snapshot!(device, all.join("\n======\n\n"));
        }
    });
}

/// A second gateway is set up, or a comment says that it is not.
#[test]
fn each_device_is_told_of_a_second_gateway() {
    let mut two = plain();
    two.gateways.push(gateway_at(8));
    let key = two.pre_shared_key.expose().to_owned();
    let peer =
        |name: &str, address: &str| (name.to_owned(), address.to_owned(), address.to_owned(), key.clone());
    let expected =
        [peer("wicketgate-customer-a", "198.51.100.7"), peer("wicketgate-customer-a_2", "198.51.100.8")];
    assert_eq!(strongswan_peers(&shown("strongswan", &two)), expected);
    assert_eq!(strongswan_peers(&shown("strongswan", &plain())), expected[..1]);
    for device in DEVICES.iter().map(|d| d.format).filter(|device| *device != "strongswan") {
        let (one, both) = (shown(device, &plain()), shown(device, &two));
        let more: Vec<_> = both.lines().filter(|line| !one.lines().any(|other| other == *line)).collect();
        assert_eq!(more.len(), 2, "{device}: {more:?}");
        assert!(more[0].contains("The tunnel has another gateway, 198.51.100.8"), "{device}: {more:?}");
        let is_comment = |line: &&str| line.starts_with(['#', '!']) || device == "pfsense";
        assert!(more.iter().all(is_comment), "{device}: {more:?}");
    }
    insta::with_settings!({omit_expression => true}, {
        insta::assert_snapshot!("two_gateways", shown("strongswan", &two));
    });
}

#[test]
fn a_device_without_a_supported_proposal_is_refused() {
    let x25519 = narrowed(plain(), &["aes256gcm16-prfsha256-x25519"], &["aes256gcm16-x25519"]);
    for device in DEVICES.iter().map(|d| d.format) {
        let file = render(device, &x25519).unwrap();
        let can = X25519.contains(&device);
        assert_eq!(file.is_ok(), can, "{device}");
        let named = |e: RenderError| e.to_string().contains("aes256gcm16-prfsha256-x25519");
        assert!(can || file.is_err_and(named), "{device}");
    }
    let v6 = config("a", "2001:db8::1", "Akey_of.letters0digits.and_nothing.else42");
    assert!(
        shown("cisco-ios", &v6).starts_with("refused: Cisco IOS XE does not support the tunnel's peerId")
    );
    assert!(shown("strongswan", &v6).contains("id = \"2001:db8::1\""));
}

/// The lines of each device's file that contain the identity, or why there is no file.
#[test]
fn each_device_gets_the_type_of_the_identity() {
    let mut all = String::new();
    for device in DEVICES.iter().map(|d| d.format) {
        all += &format!("{device}\n");
        for peer_id in IDENTITIES {
            let config = config("customer-a", peer_id, "Akey_of.letters0digits.and_nothing.else42");
            let hex = quote::hex(&config.peer.id);
            let file = shown(device, &config);
            let lines = file.lines().filter(|line| {
                let has = |text: &str| line.contains(text) && !line.starts_with(['!', '#']);
                line.starts_with("refused")
                    || has(&config.peer.id)
                    || has(&hex)
                    || line.contains("id_type>")
                    || line.contains("localid-type")
            });
            all += &format!("  {peer_id}\n");
            all.extend(lines.map(|line| format!("    {}\n", line.trim())));
        }
    }
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!("identities", all) });
}

/// The lines of each device's file that another tunnel's file does not have: perfect forward secrecy is off.
#[test]
fn each_device_without_a_group_makes_no_exchange_in_rekeys() {
    let without = narrowed(
        plain(),
        &["aes256-sha256-modp2048"],
        &["aes256gcm16", "aes256-sha256", "aes256gcm16-ecp384"],
    );
    let with = narrowed(
        plain(),
        &["aes256-sha256-modp2048"],
        &["aes256gcm16-ecp384", "aes256-sha256-ecp384", "aes256gcm16"],
    );
    let mut all = String::new();
    for device in DEVICES.iter().map(|d| d.format) {
        let [without, with] = [&without, &with].map(|config| shown(device, config));
        all += &format!("{device}\n");
        for (mark, file, other) in [('+', &without, &with), ('-', &with, &without)] {
            let lines = file.lines().filter(|line| !other.lines().any(|o| o == *line));
            all.extend(lines.map(|line| format!("  {mark} {line}\n")));
        }
    }
    insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!("no_group", all) });
}

#[test]
fn names_are_shortened_for_a_device_and_stay_distinct() {
    let name = |text: &str| config(text, "203.0.113.1", HOSTILE).object(15);
    assert_eq!(name("customer-a"), "wg-customer-a");
    let (one, other) = (name("customer-north-1"), name("customer-north-2"));
    assert!(one != other && one.len() <= 15 && other.len() <= 15, "{one} {other}");
}

proptest! {
    /// For any key, the configuration is refused, or the device reads exactly that key and the rest of the file is the
    /// same as with another key.
    #[test]
    fn no_key_breaks_out_of_its_quotes(key in "[ -~]{20,128}|[a-zA-Z0-9._]{20,64}|0[xs][0-9a-f]{20,40}") {
        for device in DEVICES.iter().map(|d| d.format) {
            let file = render(device, &config("customer-a", "203.0.113.1", &key)).unwrap();
            let always = !REFUSE_KEYS.contains(&device);
            let Ok(file) = file else {
                prop_assert!(!always, "the configuration of {device} is refused for {key:?}");
                continue;
            };
            let (lines, keys) = taken_out(device, &file);
            prop_assert_eq!(&lines, &taken_out(device, &shown(device, &plain())).0, "{}", device);
            prop_assert!(!keys.is_empty() && keys.iter().all(|k| k.as_ref() == Some(&key)), "{} {:?} {:?}", device, key, keys);
        }
    }

    #[test]
    fn a_generated_key_is_valid_for_every_device(bytes: [u8; 32]) {
        let mut config = plain();
        config.pre_shared_key = PreSharedKey::from_random(bytes);
        for device in DEVICES.iter().map(|d| d.format) {
            let file = render(device, &config).unwrap();
            prop_assert!(file.as_ref().is_ok_and(|f| taken_out(device, f).1.iter().all(|k| k.as_deref() == Some(config.pre_shared_key.expose()))), "{device}");
        }
    }
}

/// Runs Libreswan's own parser. Its package conflicts with strongSwan's, so it is unpacked instead of installed.
#[test]
fn libreswan_reads_its_file() {
    let Some(libreswan) = libreswan() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (conf, nss) = (dir.path().join("ipsec.conf"), dir.path().join("nss"));
    std::fs::create_dir(&nss).unwrap();
    let check = |text: &str| {
        std::fs::write(&conf, text).unwrap();
        let mut addconn = Command::new(libreswan.join("usr/libexec/ipsec/addconn"));
        let out = addconn.arg("--checkconfig").arg("--config").arg(&conf).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    // The check of the configuration ignores algorithms: Libreswan's parser of proposals checks them.
    let mut algorithms = Vec::new();
    for peer_id in IDENTITIES {
        let file = shown("libreswan", &config("customer-a", peer_id, HOSTILE));
        let (ok, said) = check(&file);
        assert!(ok, "{said}");
        for line in file.lines() {
            let (key, value) = line.trim().split_once('=').unwrap_or_default();
            if ["ike", "esp"].contains(&key) {
                algorithms.push(format!("{key}={value}"));
            }
        }
    }
    for one in algorithms {
        let mut algparse = Command::new(libreswan.join("usr/libexec/ipsec/algparse"));
        let out = algparse.args(["-v2", "-pfs", &one]).output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success() && !said.contains("ERROR"), "{one}: {said}");
    }
    let (ok, said) = check("conn a\n    ikev2=insist\n    no-such-word=1\n    authby=secret\n");
    assert!(!ok || said.contains("no-such-word"), "the check accepts an unknown keyword: {said}");
}

/// The unpacked package. Returns `None` if it is not available; in CI, this panics.
fn libreswan() -> Option<PathBuf> {
    match wicketgate_lab::unpacked(&["libreswan"]) {
        Ok(root) => Some(root),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}
