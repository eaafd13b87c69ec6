//! How devices read the pre-shared key in their files: models that are independent of the templates. For tests and fuzzing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "only tests and fuzz targets use it")]

use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use wicketgate_model::PeerId;

/// The devices that cannot take every key.
pub(super) const REFUSE_KEYS: &[&str] = &["cisco-asa", "paloalto", "fortinet", "pfsense", "aws"];

/// The end of a gateway.
pub(super) fn gateway_at(last: u8) -> End {
    End {
        public_ip: [198, 51, 100, last].into(),
        id: format!("198.51.100.{last}"),
        id_type: "ipv4",
        traffic_selector: "100.64.0.1/32".parse().unwrap(),
    }
}

/// The peers of a strongSwan file: name of the connection, address, identity, and the key for that identity.
#[cfg(test)]
pub(super) fn strongswan_peers(text: &str) -> Vec<(String, String, String, String)> {
    let (connections, secrets) = text.split_once("\nsecrets {\n").unwrap();
    let value = |line: &str| line.split_once(" = ").unwrap().1.trim_matches('"').to_owned();
    let blocks = |of: &str, begin: &str| -> Vec<Vec<String>> {
        let mut blocks: Vec<Vec<String>> = Vec::new();
        for line in of.lines() {
            match line.strip_prefix(begin).filter(|rest| rest.ends_with(" {")) {
                Some(_) => blocks.push(vec![line.trim().trim_end_matches(" {").to_owned()]),
                None => blocks.last_mut().into_iter().for_each(|block| block.push(line.trim().to_owned())),
            }
        }
        blocks
    };
    let find = |block: &[String], begin: &str, nth: usize| {
        value(block.iter().filter(|line| line.starts_with(begin)).nth(nth).unwrap())
    };
    let secrets = blocks(secrets, "  ike-");
    let key_of = |id: &str| {
        let block = secrets.iter().find(|block| find(block, "id-remote", 0) == id).unwrap();
        from_base64(&find(block, "secret", 0)).unwrap()
    };
    blocks(connections, "  wicketgate-")
        .iter()
        .map(|block| {
            let id = find(block, "id = ", 1);
            (block[0].clone(), find(block, "remote_addrs", 0), id.clone(), key_of(&id))
        })
        .collect()
}

pub(super) fn config(name: &str, peer_id: &str, key: &str) -> VpnConfig {
    let net = |s: &str| s.parse::<Ipv4Net>().unwrap();
    let peer_id: PeerId = peer_id.parse().unwrap();
    VpnConfig {
        name: name.parse().unwrap(),
        strongswan_id: peer_id.in_strongswan(),
        ike_version: 2,
        gateway: gateway_at(7),
        gateways: vec![gateway_at(7)],
        peer: End {
            public_ip: [203, 0, 113, 1].into(),
            id: peer_id.value().to_owned(),
            id_type: peer_id.kind().as_str(),
            traffic_selector: net("172.31.0.0/16"),
        },
        pre_shared_key: key.parse().unwrap(),
        ike: Phase { proposals: IkeProposals::default(), lifetime_seconds: IKE_LIFETIME },
        esp: Phase { proposals: EspProposals::default(), lifetime_seconds: ESP_LIFETIME },
        dpd: Dpd { delay_seconds: DPD_DELAY, action: "restart" },
        mtu: MTU,
        mss: MSS,
        routes: [net("100.64.0.1/32")],
        udp_encapsulation: true,
        initiator: "peer",
    }
}

/// The text around the key in a device's file, and a model of how the device parses the text between.
struct Place {
    before: &'static str,
    after: &'static str,
    read: fn(&str) -> Option<String>,
}

fn from_hex(hex: &str) -> Option<String> {
    let bytes = (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(hex.get(n..n + 2)?, 16).ok());
    String::from_utf8(bytes.collect::<Option<Vec<_>>>()?).ok()
}

fn from_base64(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text.strip_prefix("0s")?).ok()?).ok()
}

/// A word without any of the characters that are special to the device, which the device reads literally.
fn word(text: &str, ends: &str) -> Option<String> {
    (!text.contains(|c| ends.contains(c))).then(|| text.to_owned())
}

fn place(device: &str) -> Place {
    let place = |before, after, read| Place { before, after, read };
    match device {
        "strongswan" => place("secret = \"", "\"", from_base64),
        "libreswan" => place(": PSK ", "", from_base64),
        "vyos" => place(" secret '", "'", from_base64),
        "cisco-ios" => place("  pre-shared-key ", "", |t| match t.strip_prefix("hex ") {
            Some(hex) => from_hex(hex),
            None => word(t, "? \""),
        }),
        "cisco-asa" => place("-authentication pre-shared-key ", "", |t| word(t, "? \"")),
        "paloalto" => place("pre-shared-key key \"", "\"", |t| word(t, "?\"'\\")),
        "juniper" => place("pre-shared-key ", "", |t| match t.strip_prefix("hexadecimal ") {
            Some(hex) => from_hex(hex),
            None => word(t.strip_prefix("ascii-text \"")?.strip_suffix('"')?, "\"\\ ?"),
        }),
        "mikrotik" => place("secret=\"", "\"", |t| match t.strip_prefix("0x") {
            Some(hex) => from_hex(hex),
            None => word(t, "\"\\$? "),
        }),
        "pfsense" => place("<pre-shared-key>", "</pre-shared-key>", |t| {
            let parts = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
            let text = word(t, "<>")?;
            Some(parts.into_iter().fold(text, |text, (entity, c)| text.replace(entity, c)))
        }),
        "fortinet" => place("set psksecret \"", "\"", |t| {
            let (mut key, mut chars) = (String::new(), t.chars());
            while let Some(c) = chars.next() {
                match c {
                    '\\' => key.push(chars.next()?),
                    '"' | '?' | '$' => return None,
                    c => key.push(c),
                }
            }
            Some(key)
        }),
        "aws" => place("\"PreSharedKey\":\"", "\"", |t| word(t, "\"'\\")),
        other => panic!("{other}"),
    }
}

/// The lines without their keys, and the keys as the device reads them.
pub(super) fn taken_out(device: &str, file: &str) -> (Vec<String>, Vec<Option<String>>) {
    let Place { before, after, read } = place(device);
    let mut keys = Vec::new();
    let lines = file.lines().map(|line| {
        let Some((start, rest)) = line.split_once(before) else { return line.to_owned() };
        let (key, end) = match (device, after) {
            // The key is in the middle of its line.
            ("aws", _) => rest.split_once(after).unwrap(),
            (_, after) => (rest.strip_suffix(after).unwrap(), after),
        };
        keys.push(read(key));
        format!("{start}{before}…{end}")
    });
    (lines.collect(), keys)
}
