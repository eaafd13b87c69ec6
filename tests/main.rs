//! Everything that crosses a process, in one binary: the product's executables at work in networks of their own.
//! Run by `make test`, as root. Every test is alone in its networks, so that any number may run at once.

mod contract;
mod e2e;
mod harness;
