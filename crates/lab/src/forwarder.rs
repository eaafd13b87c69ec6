//! A TCP port that leads to a server, and later to another one: an address that moves between hosts, and a line that is slow or
//! dark.
//!
//! Invariant: it ends no connection by itself. The ends of one that is dark learn nothing of each other, as when a host is gone.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, sleep},
    time::Duration,
};

use wicketgate_system::Mutex;

/// Ends when its process does.
#[derive(Debug)]
pub struct Forwarder {
    port: u16,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    /// The port that new connections lead to.
    target: Mutex<u16>,
    /// The number of the last switch: connections of before are dark.
    switches: AtomicU64,
    /// Milliseconds by which everything is delayed in each direction.
    delay: AtomicU64,
}

impl Forwarder {
    /// A port on loopback that leads to this one.
    ///
    /// # Errors
    /// No port is free.
    pub fn to(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let line = Line { target: Mutex::new(target), switches: AtomicU64::new(0), delay: AtomicU64::new(0) };
        let line = Arc::new(line);
        let own = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client of a server that is gone sees that its connection ends.
                let _ = own.forward(client);
            }
        });
        Ok(Self { port, line })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another port. Those that are there become dark.
    pub fn switch(&self, target: u16) {
        let mut leads_to = self.line.target.lock();
        *leads_to = target;
        // Under the lock: no connection leads to the new port and counts as one of before.
        self.line.switches.fetch_add(1, Ordering::SeqCst);
    }

    /// Leads new connections to another port, and leaves those that are there as they are.
    pub fn divert(&self, target: u16) {
        *self.line.target.lock() = target;
    }

    /// Delays everything in each direction.
    pub fn delay(&self, by: Duration) {
        self.line.delay.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Line {
    fn forward(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let (target, switch) = {
            let target = self.target.lock();
            (*target, self.switches.load(Ordering::SeqCst))
        };
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let line = Arc::clone(self);
            thread::spawn(move || line.pump(from, to, switch));
        }
        Ok(())
    }

    /// Copies one direction until its end.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, switch: u64) {
        let mut bytes = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            let delay = self.delay.load(Ordering::SeqCst);
            if delay > 0 {
                sleep(Duration::from_millis(delay));
            }
            let is_dark = self.switches.load(Ordering::SeqCst) != switch;
            if !is_dark && to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        if self.switches.load(Ordering::SeqCst) == switch {
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}
