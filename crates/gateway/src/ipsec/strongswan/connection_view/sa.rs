//! The fields of one SA in charon's messages.

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{Peer, SaTimes};
use wicketgate_vici::Message;

/// The largest difference between two readings of the same time.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(2);

pub(super) fn id(sa: &Message) -> Option<u64> {
    sa.number("uniqueid")
}

/// Both ends are authenticated.
pub(super) fn is_established(ike: &Message) -> bool {
    ike.text("established").is_some()
}

pub(super) fn peer(ike: &Message) -> Option<Peer> {
    Some(Peer {
        address: ike.text("remote-host")?.parse().ok()?,
        port: ike.text("remote-port")?.parse().ok()?,
        id: ike.text("remote-id").filter(|_| is_established(ike)).map(str::to_owned),
    })
}

/// charon reports whole seconds: the age, and the time until the rekey.
pub(super) fn times(sa: &Message, age: &str, now: Timestamp) -> Option<SaTimes> {
    let seconds = |key: &str| Some(SignedDuration::from_secs(i64::try_from(sa.number(key)?).ok()?));
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Some(SaTimes {
        established_at: now.checked_sub(seconds(age)?).ok()?,
        rekey_at: seconds("rekey-time").and_then(|left| now.checked_add(left).ok()),
    })
}

/// Readings in whole seconds may differ by one without a change.
pub(super) fn steady(before: SaTimes, now: SaTimes) -> SaTimes {
    let close = |a: Timestamp, b: Timestamp| a.duration_since(b).abs() <= SAME_TIME;
    let is_same = close(now.established_at, before.established_at);
    SaTimes {
        established_at: if is_same { before.established_at } else { now.established_at },
        // During a rekey, charon reports no time for it.
        rekey_at: before
            .rekey_at
            .filter(|old| now.rekey_at.is_none_or(|new| close(*old, new)))
            .or(now.rekey_at),
    }
}

pub(super) fn is_installed(child: &Message) -> bool {
    // While it is rekeyed, a CHILD SA still carries.
    matches!(child.text("state"), Some("INSTALLED" | "UPDATING" | "REKEYING" | "REKEYED"))
}

/// The SPIs of an IKE SA's CHILD SAs that the gateway chose.
pub(super) fn spis(ike: &Message) -> Vec<u32> {
    let children = ike.sub("child-sas").into_iter().flat_map(Message::sections);
    children.filter_map(|(_, child)| u32::from_str_radix(child.text("spi-in")?, 16).ok()).collect()
}
