//! What an operator does about a target that is not reached.

use wicketgate_transport::frame::RefusalReason;

pub(crate) fn cure(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::ConnectionRefused => "start the service, or correct the share's target",
        RefusalReason::TimedOut => {
            "check the address, the target's host, and firewalls between this host and it"
        }
        RefusalReason::NameNotFound => "correct the share's target, or the name servers of this host",
        RefusalReason::NoNameServer => {
            "repair /etc/resolv.conf of this host, or name the target in /etc/hosts"
        }
        RefusalReason::NoRoute => "add a route to it on this host, or correct the share's target",
        RefusalReason::NotPermitted => "permit the connection in the rules of this host",
        RefusalReason::NotAllowed => "start the agent with an --allow that covers it",
        RefusalReason::AgentExhausted => "see the message",
        _ => "check that the target's host runs, and the routes to it",
    }
}
