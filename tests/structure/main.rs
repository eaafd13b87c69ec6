//! What docs/ARCHITECTURE.md says about the code, held by tests: crate edges, circles between files, names, and rules
//! that no crate edge can hold. These tests read the sources and run nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod circles;
mod debt;
mod edges;
mod functions;
mod names;
mod pages;
mod rules;
mod source;
