//! The path of a share, drawn: each hop with a mark and a latency, and the cure beside what failed.

use std::io::{self, Write};

use serde_json::Value;
use url::Url;

use crate::{
    screen::Screen,
    session::text,
    table::{cell, style},
};

/// The hops as people call them.
const NAMES: &[(&str, &str)] = &[
    ("tunnel", "gateway"),
    ("ikeSa", "site's tunnel"),
    ("listener", "ingress port"),
    ("agent", "hosting agent"),
    ("target", "target"),
];

/// The hop that a resource waits for, by the reason that it is not deployed.
const WAITS_FOR: &[(&str, &str)] = &[
    ("Pending", "tunnel"),
    ("GatewayOffline", "tunnel"),
    ("GatewayUnreachable", "tunnel"),
    ("GatewayFull", "tunnel"),
    ("PeerAddressTaken", "tunnel"),
    ("TunnelFailed", "tunnel"),
    ("TunnelNotReady", "tunnel"),
    ("RedundancyLost", "tunnel"),
    ("PeerDown", "ikeSa"),
    ("PortInUse", "listener"),
    ("ListenerFailed", "listener"),
    ("ConnectionLimit", "listener"),
    ("ConnectionsRefused", "listener"),
    ("AgentOffline", "agent"),
    ("AgentSilent", "agent"),
    ("AgentPending", "agent"),
    ("AgentRefused", "agent"),
    ("AgentExhausted", "agent"),
    ("AgentDuplicated", "agent"),
    ("TargetUnreachable", "target"),
    ("TargetClosed", "target"),
    ("ConnectionsFail", "target"),
    ("ConnectionsUnanswered", "target"),
];

/// The hop as people call it. `None`: the reason is of no hop.
pub(crate) fn hop_of(reason: &str) -> Option<&'static str> {
    let (_, hop) = WAITS_FOR.iter().find(|(known, _)| *known == reason)?;
    NAMES.iter().find(|(name, _)| name == hop).map(|(_, name)| *name)
}

/// Draws a check's answer.
pub(crate) fn draw(check: &Value, screen: &Screen, out: &mut impl Write) -> io::Result<()> {
    let hops = check["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (n, hop) in hops.iter().enumerate() {
        let (key, state) = (text(hop, "hop"), text(hop, "state"));
        let name = NAMES.iter().find(|(hop, _)| *hop == key).map_or(key, |(_, name)| name);
        let mark = match state {
            "OK" => '✓',
            "FAILED" => '✗',
            "SKIPPED" => '–',
            _ => '?',
        };
        let style = if screen.has_colours { style(state) } else { anstyle::Style::new() };
        let latency = hop["latencyMs"].as_f64().map(|ms| format!("{ms:.1} ms")).unwrap_or_default();
        writeln!(out, "{style}{mark}{style:#} {name:<14} {latency:>10}  {}", cell(&hop["message"]))?;
        let is_last = n + 1 == hops.len();
        if let Some(advice) = hop.get("advice").filter(|advice| !advice.is_null()) {
            let bar = if is_last { ' ' } else { '│' };
            writeln!(out, "{bar} {:14} {:>10}  → {}", "", cell(&hop["reason"]), cell(advice))?;
        }
        if !is_last {
            writeln!(out, "│")?;
        }
    }
    Ok(())
}

/// The page about what failed first. The server may be behind a proxy with a path prefix that it does not know.
pub(crate) fn explained(check: &Value, server: &Url) -> Option<Url> {
    let hops = check["hops"].as_array()?;
    let failed = hops.iter().find(|hop| hop["state"] == "FAILED")?;
    server.join(failed["_links"]["help"]["href"].as_str()?.trim_start_matches('/')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_reason_is_of_a_hop_or_an_end() {
        let reasons = &crate::schema::named("StatusDetail")["properties"]["reason"]["enum"];
        let ends = ["Disabled", "Expired", "Deleted"];
        for reason in reasons.as_array().unwrap().iter().filter_map(Value::as_str) {
            assert_eq!(hop_of(reason).is_none(), ends.contains(&reason), "{reason}");
        }
    }

    #[test]
    fn the_page_of_the_first_failed_hop_is_at_the_server_that_was_asked() {
        let check = |href: &str| json!({"hops": [{"state": "OK"}, {"state": "FAILED", "_links": {"help": {"href": href}}}, {"state": "FAILED"}]});
        let page =
            |href: &str| explained(&check(href), &"https://gw.example/gate/".parse().unwrap()).unwrap();
        assert_eq!(page("/docs/reasons/PeerDown").as_str(), "https://gw.example/gate/docs/reasons/PeerDown");
        assert_eq!(page("https://gw.example/docs/reasons/A").as_str(), "https://gw.example/docs/reasons/A");
        assert_eq!(explained(&json!({"hops": [{"state": "OK"}]}), &"http://a/".parse().unwrap()), None);
    }

    #[test]
    fn a_failed_hop_has_its_cure_beside_it() {
        let check = json!({"ok": false, "hops": [
            {"hop": "tunnel", "state": "OK", "message": "the gateway is ready to answer the peer", "latencyMs": 0.412},
            {"hop": "ikeSa", "state": "SKIPPED", "message": "not tried"},
            {"hop": "listener", "state": "OK", "message": "bound at 100.64.0.1:9000", "latencyMs": 0.01},
            {"hop": "agent", "state": "FAILED", "reason": "AgentOffline", "message": "no agent is connected",
             "advice": "Start a hosting agent"},
            {"hop": "target", "state": "UNKNOWN", "message": "no agent dialled it"},
        ]});
        let screen = Screen { is_terminal: true, has_colours: false, width: 100 };
        let mut out = Vec::new();
        draw(&check, &screen, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
