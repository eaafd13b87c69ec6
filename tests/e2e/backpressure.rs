//! A client that reads slowly costs no more memory than the buffers of its stream.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::harness::{PATIENCE, World, door, targets::connect};

/// The number of bytes that the target would send.
const ALL: u64 = 1 << 30;
/// The size, interval and number of the client's reads: 1 kB per second, for three seconds.
const PIECE: usize = 100;
const EVERY: Duration = Duration::from_millis(100);
const PIECES: usize = 30;
/// The most that a process may grow, in bytes. The stream has two buffers of 64 KiB in each process; the rest is for
/// unrelated allocations.
const MOST: u64 = 8 << 20;

#[test]
fn a_client_that_reads_one_kilobyte_per_second_does_not_make_memory_grow() -> Result<()> {
    let world = World::loopback().start()?;
    let sent = Arc::new(AtomicU64::new(0));
    let listener = world.private.listen(world.target(7001))?;
    let count = Arc::clone(&sent);
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            thread::spawn(move || pour(tcp, &count));
        }
    });
    let (agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    world.share("source", &tunnel, &zid, world.target(7001), 9000)?;
    let processes = [world.gateway.process.pid(), agent.process.pid()];
    let before = processes.map(resident);

    let mut client = connect(&world.outside, door(&tunnel, 9000)?, PATIENCE)?;
    let mut piece = [0; PIECE];
    for _ in 0..PIECES {
        client.read_exact(&mut piece)?;
        thread::sleep(EVERY);
    }
    // The kernel's buffers are full by now: the target can send only as much as the client reads.
    let stopped = sent.load(Relaxed);
    ensure!(stopped < ALL / 4, "the target sent {stopped} bytes to a client that read {}", PIECE * PIECES);
    for (pid, before) in processes.into_iter().zip(before) {
        let (before, now) = (before?, resident(pid)?);
        ensure!(now.saturating_sub(before) < MOST, "process {pid} grew from {before} to {now} bytes");
    }
    drop(client);
    world.end()
}

fn pour(mut tcp: TcpStream, count: &AtomicU64) {
    let piece = vec![7; 64 * 1024];
    while count.load(Relaxed) < ALL && tcp.write_all(&piece).is_ok() {
        count.fetch_add(piece.len() as u64, Relaxed);
    }
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
