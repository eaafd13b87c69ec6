//! What a change of a property does to those who use the resource. A new property needs a line: a test says so.

use serde_json::Value;

/// What happens when a property changes.
#[derive(Debug)]
pub(crate) struct Effect {
    kind: &'static str,
    property: &'static str,
    /// Only if it changes to this; to anything if absent.
    to: Option<bool>,
    /// Established connections end.
    pub(crate) cuts: bool,
    /// The site's device needs a new configuration.
    pub(crate) reconfigures: bool,
    /// A sentence; empty if there is nothing to say.
    pub(crate) says: &'static str,
}

const NONE: Effect = Effect { kind: "", property: "", to: None, cuts: false, reconfigures: false, says: "" };

/// A change without an effect on connections.
const fn quiet(kind: &'static str, property: &'static str) -> Effect {
    Effect { kind, property, ..NONE }
}

/// A change that new connections notice, or those who use the resource.
const fn noticed(kind: &'static str, property: &'static str, says: &'static str) -> Effect {
    Effect { kind, property, says, ..NONE }
}

/// A change that ends the connection of a tunnel.
const fn cut(kind: &'static str, property: &'static str, reconfigures: bool, says: &'static str) -> Effect {
    Effect { kind, property, cuts: true, reconfigures, says, to: None }
}

const NEW_ONLY: &str = "Applies to new connections; open ones continue.";

pub(crate) const EFFECTS: &[Effect] = &[
    quiet("tunnel", "name"),
    quiet("tunnel", "description"),
    quiet("tunnel", "tags"),
    quiet("tunnel", "initiate"),
    noticed(
        "tunnel",
        "redundant",
        "Another gateway serves the tunnel, or one ceases to; the site's device needs the new configuration.",
    ),
    quiet("tunnel", "locationId"),
    quiet("tunnel", "preSharedKey"),
    cut(
        "tunnel",
        "peerPublicIp",
        true,
        "Ends the tunnel's connection; the site has to connect from the new address.",
    ),
    cut("tunnel", "peerId", true, "Ends the tunnel's connection; the device has to have the new identity."),
    cut("tunnel", "peerCidr", true, "Ends the tunnel's connection; the device has to have the new network."),
    cut(
        "tunnel",
        "loadBalancerIp",
        true,
        "Ends the tunnel's connection; the site's hosts have to use the new address.",
    ),
    noticed(
        "tunnel",
        "ikeProposals",
        "Ends the tunnel's connection if it uses an algorithm that is no longer allowed.",
    ),
    noticed(
        "tunnel",
        "espProposals",
        "Ends the tunnel's connection if it uses an algorithm that is no longer allowed.",
    ),
    Effect {
        kind: "tunnel",
        property: "enabled",
        to: Some(false),
        cuts: true,
        reconfigures: false,
        says: "Ends the tunnel's SAs and the connections of its shares, and refuses new ones.",
    },
    quiet("share", "name"),
    quiet("share", "description"),
    quiet("share", "tags"),
    quiet("share", "locationId"),
    quiet("share", "healthCheck"),
    noticed(
        "share",
        "ipsecTunnelId",
        "Clients have to use the other tunnel's address; open connections continue.",
    ),
    noticed("share", "ingressPort", "Clients have to use the new port; open connections continue."),
    noticed("share", "envZId", NEW_ONLY),
    noticed("share", "target", NEW_ONLY),
    noticed("share", "allowedSources", NEW_ONLY),
    noticed("share", "maxConnections", NEW_ONLY),
    noticed("share", "idleTimeoutSeconds", NEW_ONLY),
    noticed("share", "proxyProtocol", NEW_ONLY),
    noticed("share", "closeWhenUnserved", "The port is closed while no agent can serve the share."),
    noticed("share", "expiresAt", "Open connections are reset, and the port is closed, at that time."),
    Effect {
        kind: "share",
        property: "enabled",
        to: Some(false),
        cuts: true,
        reconfigures: false,
        says: "Closes the port and resets the share's connections.",
    },
    noticed("frontdoor", "ipsecSharesEnabled", "Decides whether the Frontdoor's shares can be written."),
];

/// What the deletion of a resource does.
pub(crate) const DELETIONS: &[Effect] = &[
    cut(
        "tunnel",
        "",
        false,
        "Ends the tunnel's SAs and all connections over it; its addresses and its key are given up.",
    ),
    cut("share", "", false, "Closes the port and resets the share's connections."),
];

/// API accounts cannot be changed.
pub(crate) const REPLACEMENT: Effect = Effect {
    kind: "account",
    says: "The old secret is refused at once; the new one is written to clientSecretFile.",
    ..NONE
};

/// The effect of a change, if there is one.
pub(crate) fn of_change(kind: &str, property: &str, to: &Value) -> Option<&'static Effect> {
    let property = property.split('.').next().unwrap_or_default();
    let applies = |e: &&Effect| {
        let is_value = e.to.is_none_or(|value| *to == value);
        e.kind == kind && e.property == property && is_value && !e.says.is_empty()
    };
    EFFECTS.iter().find(applies)
}

/// The effect of a deletion, if there is one.
pub(crate) fn of_deletion(kind: &str) -> Option<&'static Effect> {
    DELETIONS.iter().find(|effect| effect.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn each_property_that_can_be_changed_has_an_effect() {
        for (kind, schema) in [("tunnel", "IpsecTunnelPatch"), ("share", "IpsecSharePatch")] {
            let all = schema::named(schema)["properties"].as_object().unwrap();
            for (name, _) in all.iter().filter(|(_, about)| about["readOnly"] != true) {
                assert!(EFFECTS.iter().any(|e| e.kind == kind && e.property == name), "{kind}.{name}");
            }
            for effect in EFFECTS.iter().filter(|e| e.kind == kind) {
                assert!(all.contains_key(effect.property), "{kind}.{}", effect.property);
            }
        }
    }
}
