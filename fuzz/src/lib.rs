//! What all fuzz targets have in common: a bound of memory for each input.
//!
//! The body of a target is in the crate that it is about, in the module `fuzz`, which only cargo-fuzz and tests see.

use cap::Cap;
use std::alloc::System;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that a body may have at one time: for an empty input, and for each byte of it. A parser that trusts a length field takes
/// more at once, and the process ends with the input as a find.
const BASE: usize = 8 << 20;
const PER_BYTE: usize = 256;

/// Runs the body within its memory.
pub fn bounded(body: fn(&[u8]), input: &[u8]) {
    let most = MEMORY.allocated() + BASE + PER_BYTE * input.len();
    // Not below what is allocated.
    let _ = MEMORY.set_limit(most);
    body(input);
    let _ = MEMORY.set_limit(usize::MAX);
}

/// Declares the target of a body.
#[macro_export]
macro_rules! target {
    ($body:path) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::bounded($body, input));
    };
}
