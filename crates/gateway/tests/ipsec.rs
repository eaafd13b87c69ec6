//! Tunnels with real charons: remote sites on one side, the back end on the other.
//!
//! Everything that the back end does in "its own" namespace it does in one that the test made, since every thread of
//! the test's runtime has entered that. Needs root; says so and passes where it is not.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod ipsec {
    mod faults;
    mod guard;
    mod lifecycle;
    mod lost;
    mod mended;
    mod places;
    mod proposals;
    mod steering;
    mod world;
}
