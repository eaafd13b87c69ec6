//! The two directions of a relayed connection end independently.

use std::thread;

use anyhow::{Result, anyhow, ensure};

use crate::harness::{
    PATIENCE, World,
    targets::{connect, echo_after_end, send_and_end},
};

const CLIENTS: u8 = 8;
/// The bytes that each client sends.
const LENGTH: usize = 8 << 20;

#[test]
fn eight_mebibytes_are_echoed_unchanged_after_the_client_shuts_down_its_sending_side() -> Result<()> {
    let (world, published) = World::loopback().publish(echo_after_end)?;

    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let from = &world.outside;
                scope.spawn(move || -> Result<()> {
                    let sent = noise(n);
                    let back = send_and_end(connect(from, published.door, PATIENCE)?, &sent)?;
                    ensure!(back.len() == sent.len(), "received {} of {} bytes", back.len(), sent.len());
                    ensure!(back == sent, "the received bytes differ");
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|c| c.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    world.end()
}

/// Pseudo-random bytes (seeded xorshift), in which a swapped or repeated block is visible.
fn noise(seed: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(seed);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..LENGTH / 8).flat_map(|_| next()).collect()
}
