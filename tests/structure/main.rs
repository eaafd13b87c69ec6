//! Tests that the code follows docs/ARCHITECTURE.md: dependencies between crates, circles between files, names, and
//! rules within a crate. These tests read the sources and run no code of the product.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod book;
mod circles;
mod debt;
mod edges;
mod errors;
mod faults;
mod functions;
mod fuzz;
mod names;
mod pages;
mod reference;
mod rules;
mod source;
