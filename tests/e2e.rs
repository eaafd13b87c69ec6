//! The product from the outside: API, IPsec, agents, targets, and what happens when a part of it dies.

mod agents;
mod backpressure;
mod charon_crash;
mod checks;
mod crash;
mod crash_ipsec;
mod dead_peer;
mod descriptors;
mod drain;
mod entry_point;
mod first_failures;
mod guard;
mod half_close;
mod holding;
mod honest_ends;
mod initiate;
mod kernel_esp;
mod mtu;
mod nat;
mod overlapping;
mod problems;
mod restart;
mod rotation;
mod secrets;
mod selectors;
mod share_options;
