//! The targets behind all peers: a sink, a source and an echo in the benchmark's own process.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The bytes of one read or write of a bulk transfer: large, so that the load generator is not the bottleneck.
pub(crate) const CHUNK: usize = 256 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// Reads and discards everything.
    pub(crate) sink: SocketAddr,
    /// Sends until the client closes the connection.
    pub(crate) source: SocketAddr,
    /// Sends back everything that it receives.
    pub(crate) echo: SocketAddr,
    /// Sends back one byte and closes the connection.
    pub(crate) answer: SocketAddr,
    /// Bytes that the sink has read.
    pub(crate) sunk: Arc<AtomicU64>,
}

impl Targets {
    /// Listens on `ip` in the namespace of the calling thread until the process ends.
    pub(crate) fn start(ip: Ipv4Addr, runtime: &tokio::runtime::Handle) -> Result<Self> {
        let sunk = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sunk);
        let sink = each(ip, move |tcp| swallow(tcp, &count))?;
        let source = each(ip, pour)?;
        let asynchronous = || -> Result<_> {
            let listener = listen(ip)?;
            let address = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            let _inside = runtime.enter();
            Ok((tokio::net::TcpListener::from_std(listener)?, address))
        };
        let ((to_echo, echo), (to_answer, answer)) = (asynchronous()?, asynchronous()?);
        runtime.spawn(serve_echo(to_echo));
        runtime.spawn(serve_answer(to_answer));
        Ok(Self { sink, source, echo, answer, sunk })
    }
}

/// A listener with a backlog that is large enough for a burst.
fn listen(ip: Ipv4Addr) -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((ip, 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn each(ip: Ipv4Addr, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<SocketAddr> {
    let listener = listen(ip)?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(tcp));
        }
    });
    Ok(address)
}

fn swallow(mut tcp: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = tcp.read(&mut buffer) {
        count.fetch_add(n as u64, Relaxed);
    }
}

fn pour(mut tcp: TcpStream) {
    let buffer = vec![7; CHUNK];
    while tcp.write_all(&buffer).is_ok() {}
}

async fn serve_echo(listener: tokio::net::TcpListener) {
    loop {
        let Ok((mut tcp, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let mut buffer = [0; 256];
            while let Ok(n @ 1..) = tcp.read(&mut buffer).await {
                if tcp.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn serve_answer(listener: tokio::net::TcpListener) {
    loop {
        let Ok((mut tcp, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let mut byte = [0];
            if tcp.read_exact(&mut byte).await.is_ok() && tcp.write_all(&byte).await.is_ok() {
                let _ = tcp.shutdown().await;
            }
        });
    }
}
