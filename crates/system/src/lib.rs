//! What a process asks of its operating system, once for all crates.

pub mod private_file;
