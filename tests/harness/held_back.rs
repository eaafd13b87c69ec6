//! A way to the API on which answers are held back, for what happens between a request and its answer.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::Result;

use super::{PATIENCE, World, targets::serve};

/// An answer of the server that the client has not yet got. Dropped, it goes to the client.
pub(crate) struct HeldBack(
    TcpStream,
    #[expect(dead_code, reason = "its end is the signal")] mpsc::Sender<()>,
);

impl HeldBack {
    /// Closes the client's connection instead.
    pub(crate) fn lose(self) -> Result<()> {
        Ok(self.0.shutdown(Shutdown::Both)?)
    }
}

/// A way to the API at `on`, on which the answers to requests that begin like this are held back.
pub(crate) fn hold_back(world: &World, on: SocketAddr, begins: &str) -> Result<mpsc::Receiver<HeldBack>> {
    let begins = begins.to_owned();
    let (tell, held) = mpsc::channel();
    let (outside, api): (_, SocketAddr) =
        (world.outside.clone(), world.url().replace("http://", "").parse()?);
    serve(&world.outside, on, move |mut client| {
        let Ok(mut server) = outside.connect(api, PATIENCE) else { return };
        let is_held = AtomicBool::new(false);
        let mut piece = vec![0; 1 << 16];
        thread::scope(|scope| {
            let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { return };
            let (is_held, begins) = (&is_held, &begins);
            scope.spawn(move || {
                let mut piece = vec![0; 1 << 16];
                while let Ok(n @ 1..) = from.read(&mut piece) {
                    is_held.fetch_or(piece[..n].starts_with(begins.as_bytes()), Ordering::SeqCst);
                    if to.write_all(&piece[..n]).is_err() {
                        return;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
            while let Ok(n @ 1..) = server.read(&mut piece) {
                if is_held.swap(false, Ordering::SeqCst)
                    && let Ok(line) = client.try_clone()
                {
                    let (let_go, gone) = mpsc::channel();
                    let _ = tell.send(HeldBack(line, let_go));
                    let _ = gone.recv();
                }
                if client.write_all(&piece[..n]).is_err() {
                    break;
                }
            }
            let _ = client.shutdown(Shutdown::Both);
        });
    })?;
    Ok(held)
}
