//! Acts on one resource that are neither a change of its properties nor its end. A new act is a line of [`ACTS`].

use crate::kind::Kind;

/// A verb of one kind of resource.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) kind: &'static str,
    pub(crate) verb: &'static str,
    pub(crate) about: &'static str,
    /// Below the resource's path; empty for a PATCH of the resource itself.
    pub(crate) path: &'static str,
    /// The schema of the body, whose properties are flags.
    pub(crate) schema: Option<&'static str>,
    /// A property that the body always has.
    pub(crate) sets: Option<(&'static str, bool)>,
    pub(crate) answer: Answer,
    /// What a person is told, if the answer has the properties that it names.
    pub(crate) says: &'static str,
}

/// What the API answers an act with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The resource, which settles later.
    Resource,
    /// The record of the act, which ends with the outcome.
    Execution,
    /// The outcome.
    Outcome,
}

/// What most acts have in common.
const PLAIN: Act = Act {
    kind: "",
    verb: "",
    about: "",
    path: "",
    schema: None,
    sets: None,
    answer: Answer::Resource,
    says: "",
};

/// In the order of `--help`.
pub(crate) const ACTS: &[Act] = &[
    Act {
        kind: "tunnel",
        verb: "enable",
        about: "Serve a disabled tunnel and its shares again",
        sets: Some(("enabled", true)),
        ..PLAIN
    },
    Act {
        kind: "tunnel",
        verb: "disable",
        about: "End the SAs of a tunnel, reset its shares' connections, and serve nothing of it; it keeps its name, key and address",
        sets: Some(("enabled", false)),
        ..PLAIN
    },
    Act {
        kind: "tunnel",
        verb: "reset",
        about: "Rekey the SAs of a tunnel, or end them and start them again",
        path: "reset",
        schema: Some("ResetRequest"),
        answer: Answer::Execution,
        ..PLAIN
    },
    Act {
        kind: "tunnel",
        verb: "rotate-key",
        about: "Replace the pre-shared key; the old one works for a day, for --grace-seconds, or no longer with --cut. Revokes handover links",
        path: "psk",
        schema: Some("PreSharedKeyRequest"),
        says: "The previous key works until {previousKeyUntil}.",
        ..PLAIN
    },
    Act {
        kind: "gateway",
        verb: "drain",
        about: "Give a gateway no more tunnels while its location has another one; for the operator",
        sets: Some(("draining", true)),
        ..PLAIN
    },
    Act {
        kind: "gateway",
        verb: "undrain",
        about: "Give a gateway tunnels again; for the operator",
        sets: Some(("draining", false)),
        ..PLAIN
    },
    Act {
        kind: "gateway",
        verb: "confirm-removal",
        about: "Have a gateway remove the tunnels whose removal it holds back; for the operator",
        path: "confirm-removal",
        schema: Some("ConfirmRemovalRequest"),
        ..PLAIN
    },
    Act {
        kind: "share",
        verb: "enable",
        about: "Serve a disabled share again",
        sets: Some(("enabled", true)),
        ..PLAIN
    },
    Act {
        kind: "share",
        verb: "disable",
        about: "Close the port of a share and reset its connections; it keeps its name and port",
        sets: Some(("enabled", false)),
        ..PLAIN
    },
    Act {
        kind: "share",
        verb: "close-connections",
        about: "Reset the open connections of a share: all, or those of one client. Clients may connect again at once",
        path: "connections/close",
        schema: Some("CloseConnectionsRequest"),
        answer: Answer::Outcome,
        says: "{closed} connections were reset.",
        ..PLAIN
    },
];

/// The act of a kind with this verb.
pub(crate) fn act(kind: &Kind, verb: &str) -> Option<&'static Act> {
    ACTS.iter().find(|act| act.kind == kind.name && act.verb == verb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kind::KINDS, schema};

    #[test]
    fn each_act_belongs_to_a_kind_and_its_schema_has_flags() {
        for act in ACTS {
            assert!(KINDS.iter().any(|kind| kind.name == act.kind), "{}", act.verb);
            assert!(act.schema.is_none_or(|schema| !schema::properties(schema).is_empty()), "{}", act.verb);
            assert_eq!(act.path.is_empty(), act.sets.is_some(), "{}", act.verb);
        }
    }
}
