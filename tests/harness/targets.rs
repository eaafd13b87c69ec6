//! Targets of shares, and clients of shares. A target serves until the test's process ends.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use rustix::net::{
    AddressFamily, SocketType, bind, socket,
    sockopt::{Timeout, set_socket_timeout},
};
use wicketgate_lab::Namespace;

use super::PATIENCE;

/// A service that sends "here".
pub(crate) fn here(namespace: &Namespace, on: SocketAddr) -> Result<()> {
    greeting(namespace, on, "here")
}

/// A service that sends `words` to every client and closes the connection.
pub(crate) fn greeting(namespace: &Namespace, on: SocketAddr, words: &'static str) -> Result<()> {
    serve(namespace, on, move |mut stream| {
        let _ = stream.write_all(words.as_bytes());
    })
}

/// A service that echoes each piece immediately, until the client ends.
pub(crate) fn echo(namespace: &Namespace, on: SocketAddr) -> Result<()> {
    serve(namespace, on, |mut stream| {
        let mut piece = vec![0; 1 << 16];
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            if stream.write_all(&piece[..n]).is_err() {
                return;
            }
        }
    })
}

/// A service that receives until the client shuts down its sending side, and then sends everything back.
pub(crate) fn echo_after_end(namespace: &Namespace, on: SocketAddr) -> Result<()> {
    serve(namespace, on, |mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(&all);
        }
    })
}

/// An echo that reports how its connections end: with an error, or orderly (`None`). Connections without data are
/// probes and are not reported.
pub(crate) fn witness(namespace: &Namespace, on: SocketAddr) -> Result<mpsc::Receiver<Option<ErrorKind>>> {
    let listener = namespace.listen(on)?;
    let (tell, ends) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            thread::spawn(move || {
                let (mut piece, mut all) = ([0; 4096], 0);
                let end = loop {
                    match stream.read(&mut piece).and_then(|n| stream.write_all(&piece[..n]).map(|()| n)) {
                        Ok(0) => break None,
                        Ok(n) => all += n,
                        Err(error) => break Some(error.kind()),
                    }
                };
                if all > 0 {
                    let _ = tell.send(end);
                }
            });
        }
    });
    Ok(ends)
}

pub(crate) fn serve(
    namespace: &Namespace,
    on: SocketAddr,
    each: impl Fn(TcpStream) + Send + Sync + 'static,
) -> Result<()> {
    let listener = namespace.listen(on)?;
    let each = std::sync::Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = std::sync::Arc::clone(&each);
            thread::spawn(move || each(stream));
        }
    });
    Ok(())
}

/// Connects a client, with timeouts for its reads and writes.
pub(crate) fn connect(from: &Namespace, to: SocketAddr, bound: Duration) -> Result<TcpStream> {
    let stream = from.connect(to, bound)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Like [`connect`]. `None` if the connection was accepted and is already reset: its end may be seen while it connects.
pub(crate) fn connect_or_reset(
    from: &Namespace,
    to: SocketAddr,
    bound: Duration,
) -> Result<Option<TcpStream>> {
    match connect(from, to, bound) {
        Err(error) if was_reset(&error) => Ok(None),
        connected => connected.map(Some),
    }
}

fn was_reset(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

/// Opens connections to an [`echo`] that stay, until one is not served or there are `most`.
pub(crate) fn fill(from: &Namespace, to: SocketAddr, most: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    while open.len() < most {
        let Some(mut client) = connect_or_reset(from, to, PATIENCE)? else { break };
        if exchange(&mut client, b"one more").is_err() {
            break;
        }
        open.push(client);
    }
    Ok(open)
}

/// Like [`connect`], from `source`, one of the namespace's addresses.
pub(crate) fn connect_as(
    from: &Namespace,
    source: Ipv4Addr,
    to: SocketAddr,
    bound: Duration,
) -> Result<TcpStream> {
    let fd = from.enter(|| -> Result<_> {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // Also bounds `connect`.
        set_socket_timeout(&fd, Timeout::Send, Some(bound))?;
        bind(&fd, &SocketAddr::from((source, 0)))?;
        rustix::net::connect(&fd, &to).map_err(io::Error::from)?;
        Ok(fd)
    })??;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects, sends nothing, and returns the text that the target sends.
pub(crate) fn ask(from: &Namespace, to: SocketAddr, bound: Duration) -> Result<String> {
    let mut stream = connect(from, to, bound)?;
    stream.set_read_timeout(Some(bound))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Sends `words` to an [`echo`] and checks the answer.
pub(crate) fn exchange(stream: &mut TcpStream, words: &[u8]) -> Result<()> {
    stream.write_all(words)?;
    let mut back = vec![0; words.len()];
    stream.read_exact(&mut back)?;
    ensure!(back == words, "the answer differs");
    Ok(())
}

/// Sends `all`, shuts down the sending side, and returns what it receives until the end.
pub(crate) fn send_and_end(mut stream: TcpStream, all: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(all)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::with_capacity(all.len());
    stream.read_to_end(&mut back)?;
    Ok(back)
}

/// Checks that the connection is reset without any data.
pub(crate) fn is_reset(mut stream: TcpStream) -> Result<()> {
    match stream.read(&mut [0; 1]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("{other:?} instead of a reset"),
    }
}

/// Like [`is_reset`], for a connection that may already have been reset while it was established.
pub(crate) fn is_refused(connected: Result<TcpStream>) -> Result<()> {
    match connected {
        Ok(stream) => is_reset(stream),
        Err(error) if was_reset(&error) => Ok(()),
        Err(error) => Err(error.context("another error instead of a reset")),
    }
}
