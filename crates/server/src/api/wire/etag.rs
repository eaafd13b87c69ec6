//! Entity tags (RFC 9110 §8.8.3): `"a1b2…"`, the hash of a resource's representation, with its id and status. A tag
//! changes exactly with the representation.
//!
//! The connection of a tunnel, what an agent reports of its shares and of itself, and what changes of a tunnel or a share with its peer or
//! with each client, are hashed into a second part, after a dot. A 304 requires both parts to match. A write ignores the second part: otherwise no write to a busy tunnel would succeed. HAL
//! is another representation with another tag, which writes accept too.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wicketgate_model::Reason;

/// Bytes of a hash that are shown: a collision of two states of one resource in 16 bytes is infeasible.
const SHOWN: usize = 16;
/// The properties that are seen, not written: of a tunnel, of an agent, of both a tunnel and a share, and of a Frontdoor, of
/// which another limit is another `updatedAt`.
const REPORTED: [&str; 9] = [
    "connection",
    "endpoints",
    "redundancy",
    "shares",
    "report",
    "unansweredSince",
    "clockSecondsAhead",
    "ready",
    "quotas",
];
const HAL: &str = "-hal";
/// What Apache and Caddy append to the tags of answers that they compress.
const COMPRESSED: [&str; 3] = ["-gzip", "-br", "-zstd"];

/// An entity tag, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct ETag(String);

impl ETag {
    /// The tag of a resource in plain JSON.
    pub(in crate::api) fn of(it: &impl Serialize) -> Self {
        let mut value = serde_json::to_value(it).unwrap_or_default();
        let mut counted = Vec::new();
        if let Value::Object(resource) = &mut value {
            counted.extend(REPORTED.iter().filter_map(|name| resource.remove(*name)));
            let detail = resource.get_mut("statusDetail").and_then(Value::as_object_mut);
            let passing = [json!(Reason::PeerDown), json!(Reason::RedundancyLost)];
            let passes = |detail: &&mut serde_json::Map<String, Value>| {
                detail.get("reason").is_some_and(|reason| passing.contains(reason))
            };
            if detail.as_ref().is_some_and(passes) {
                counted.extend(resource.remove("statusDetail"));
            } else if let Some(detail) = detail {
                counted.extend(detail.remove("connections"));
            }
        }
        let state = hash(&value);
        Self(if counted.is_empty() { state } else { format!("{state}.{}", hash(&json!(counted))) })
    }

    pub(super) fn hal(self) -> Self {
        Self(self.0 + HAL)
    }

    /// With the quotes.
    pub(in crate::api) fn header(&self) -> String {
        format!("\"{}\"", self.0)
    }

    /// The part that a write compares.
    fn state(tag: &str) -> &str {
        let tag = plain(tag);
        let tag = tag.strip_suffix(HAL).unwrap_or(tag);
        tag.split('.').next().unwrap_or(tag)
    }
}

/// A tag without what a proxy appends when it compresses the answer.
fn plain(tag: &str) -> &str {
    COMPRESSED.iter().find_map(|suffix| tag.strip_suffix(suffix)).unwrap_or(tag)
}

fn hash(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    digest.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect()
}

/// The value of an `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum Tags {
    Any,
    /// The tags, each with whether it is weak.
    These(Vec<(bool, String)>),
}

impl Tags {
    /// `None` if the value is not a list of entity tags.
    pub(in crate::api) fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        let mut rest = text.trim();
        // Empty elements of a list are ignored (RFC 9110 §5.6.1.2); an empty list names no state.
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_start();
                continue;
            }
            let (weak, after) = rest.strip_prefix("W/").map_or((false, rest), |after| (true, after));
            let (tag, after) = after.strip_prefix('"')?.split_once('"')?;
            tags.push((weak, tag.to_owned()));
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
        Some(Self::These(tags))
    }

    /// For `If-Match`: whether the current state is one of the tags'. RFC 9110 §13.1.1 lets no weak tag match. But all tags
    /// of this server are strong, and a proxy that compresses answers makes them weak: then no write would succeed.
    pub(in crate::api) fn match_state(&self, current: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|(_, tag)| ETag::state(tag) == ETag::state(&current.0)),
        }
    }

    /// For `If-None-Match`, with `current` as in the header.
    pub(in crate::api) fn match_exactly(&self, current: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|(_, tag)| current.trim_matches('"') == plain(tag)),
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;

    /// An accepted list of tags is the list that is read of its tags.
    pub fn entity_tags(text: &[u8]) {
        let Some(tags) = std::str::from_utf8(text).ok().and_then(Tags::parse) else { return };
        let Tags::These(these) = &tags else { return };
        let written = these.iter().map(|(weak, tag)| format!("{}\"{tag}\"", if *weak { "W/" } else { "" }));
        let written: Vec<_> = written.collect();
        assert_eq!(Tags::parse(&written.join(", ")).as_ref(), Some(&tags));
        for (_, tag) in these {
            assert!(tags.match_state(&ETag(tag.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tunnel(status: &str, bytes: u64) -> Value {
        json!({"id": "tnl-1", "status": status, "connection": {"state": "UP", "bytesIn": bytes, "bytesOut": 0}})
    }

    #[test]
    fn counters_affect_the_tag_of_reads_only() {
        let (before, after) = (ETag::of(&tunnel("NEW", 1)), ETag::of(&tunnel("NEW", 2)));
        let known = Tags::parse(&before.header()).unwrap();
        assert!(known.match_state(&after) && !known.match_exactly(&after.header()));
        assert!(known.match_exactly(&before.header()));
        assert!(!known.match_state(&ETag::of(&tunnel("DEPLOYED", 1))));
        let hal = before.clone().hal();
        assert!(Tags::parse(&hal.header()).unwrap().match_state(&before));
        assert!(!known.match_exactly(&hal.header()));
    }

    #[test]
    fn a_write_is_not_refused_because_the_peer_or_a_client_was_there() {
        let share = |ready: bool, detail: Value| {
            let share = json!({"id": "shr-1", "status": "DEPLOYED", "ready": ready, "statusDetail": detail});
            ETag::of(&share)
        };
        let served = ETag::of(&json!({"id": "shr-1", "status": "DEPLOYED", "ready": true}));
        let lost = share(false, json!({"reason": "PeerDown", "message": "m", "since": "s"}));
        let known = Tags::parse(&served.header()).unwrap();
        assert!(known.match_state(&lost) && !known.match_exactly(&lost.header()));
        let fails = |count: u64| {
            let connections = json!({"notServed": count, "of": 10});
            share(
                false,
                json!({"reason": "ConnectionsFail", "message": "m", "since": "s", "connections": connections}),
            )
        };
        let known = Tags::parse(&fails(6).header()).unwrap();
        assert!(known.match_state(&fails(7)) && !known.match_exactly(&fails(7).header()));
        assert!(!known.match_state(&served));
    }

    #[test]
    fn a_tag_that_a_compressing_proxy_changed_names_the_same_state() {
        let tag = ETag::of(&tunnel("NEW", 1));
        let strong = tag.header();
        for seen in [format!("W/{strong}"), format!("{}-gzip\"", strong.trim_end_matches('"'))] {
            let known = Tags::parse(&seen).unwrap();
            assert!(known.match_state(&tag) && known.match_exactly(&strong), "{seen}");
            assert!(!known.match_state(&ETag::of(&tunnel("DEPLOYED", 1))), "{seen}");
        }
    }

    #[test]
    fn lists_of_tags_are_read() {
        let these = |tags: &[(bool, &str)]| {
            Some(Tags::These(tags.iter().map(|(w, t)| (*w, (*t).to_owned())).collect()))
        };
        assert_eq!(Tags::parse(" * "), Some(Tags::Any));
        assert_eq!(Tags::parse("\"a\" ,W/\"b,c\", \"\""), these(&[(false, "a"), (true, "b,c"), (false, "")]));
        assert_eq!(Tags::parse(", \"a\",, \"b\" ,"), these(&[(false, "a"), (false, "b")]));
        assert_eq!(Tags::parse(" "), these(&[]));
        for bad in ["a", "\"a", "\"a\" \"b\"", "*, \"a\"", "w/\"a\""] {
            assert_eq!(Tags::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "[Ww/\", *a]{0,16}") {
            let _ = Tags::parse(&text);
        }
    }
}
