//! Tests that cross process boundaries, in one binary. They run the product's executables in network namespaces.
//! `make test` runs them as root. Each test has its own namespaces, so any number of tests can run in parallel.

mod contract;
mod e2e;
mod harness;
