//! Tunnels with real charon daemons: remote sites on one side, the back end on the other.
//!
//! The back end's "own" namespace is one that the test creates: every thread of the test's runtime has entered it. The
//! tests need root; without it, they print a message and pass.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod ipsec {
    mod children;
    mod faults;
    mod guard;
    mod identities;
    mod lifecycle;
    mod limits;
    mod lost;
    mod mended;
    mod places;
    mod proposals;
    mod steering;
    mod stray;
    mod twins;
    mod unusual;
    mod world;
}
