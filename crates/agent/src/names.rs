//! Lookups of names, bounded for each name.
//!
//! The system's resolver (`getaddrinfo`) is asked, so that the agent finds what other programs on its host find. It
//! blocks a thread for as long as the host's name servers are silent, a minute and more. Invariants: one lookup of a
//! name runs at a time, however many streams wait for it; a name whose lookup hangs takes no thread from names that
//! are answered.

mod known_name;
mod system_resolver;

pub(crate) use system_resolver::{Family, NoAddress};

use crate::shortage::Shortage;
use known_name::KnownName;
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};
use wicketgate_system::Mutex;

/// A lookup that takes longer hangs: no name server that works needs a second.
const PROMPT: Duration = Duration::from_secs(1);
/// Concurrent lookups of names that are not known to hang.
const PROMPT_LOOKUPS: usize = 256;
/// Concurrent lookups of names that hung the last time.
const HANGING_LOOKUPS: usize = 64;
/// Threads of lookups. A new name is not known to hang, so more than the two limits together may hang once.
const THREADS: usize = 1024;
/// The C library's resolver and its modules need some ten KiB.
const STACK: usize = 512 * 1024;
/// Names that are remembered. Above it, those without a running lookup are forgotten.
const MOST_NAMES: usize = 4096;

/// Asks for a name's addresses and blocks until there is an answer.
type Resolve = dyn Fn(&str, Family) -> Result<Vec<SocketAddr>, NoAddress> + Send + Sync;

/// The names that the agent connects to.
pub(crate) struct Names {
    resolve: Arc<Resolve>,
    known: Mutex<HashMap<String, Arc<watch::Sender<KnownName>>>>,
    prompt: Semaphore,
    hanging: Semaphore,
    threads: Arc<Semaphore>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Arc::new(system_resolver::resolve))
    }
}

impl Names {
    fn new(resolve: Arc<Resolve>) -> Self {
        Self {
            resolve,
            known: Mutex::default(),
            prompt: Semaphore::new(PROMPT_LOOKUPS),
            hanging: Semaphore::new(HANGING_LOOKUPS),
            threads: Arc::new(Semaphore::new(THREADS)),
        }
    }

    /// The addresses of the name, with port 0; first the one that worked the last time. The caller bounds the wait.
    pub(crate) async fn lookup(self: &Arc<Self>, name: &str) -> Result<Vec<SocketAddr>, NoAddress> {
        let known = self.known(name);
        let mut news = known.subscribe();
        let answers = news.borrow().answers();
        if known.send_if_modified(KnownName::start) {
            tokio::spawn(Arc::clone(self).look(name.to_owned(), known));
        }
        loop {
            if let Some(result) = news.borrow_and_update().result_after(answers, Instant::now()) {
                return result;
            }
            if news.changed().await.is_err() {
                return Err(NoAddress::NoAnswer);
            }
        }
    }

    /// Remembers that the address of the name works.
    pub(crate) fn worked(&self, name: &str, address: SocketAddr) {
        self.known(name).send_if_modified(|known| known.prefer(address));
    }

    /// Remembers that the address of the name accepts connections and does not work.
    pub(crate) fn failed(&self, name: &str, address: SocketAddr) {
        self.known(name).send_if_modified(|known| known.avoid(address));
    }

    fn known(&self, name: &str) -> Arc<watch::Sender<KnownName>> {
        let mut known = self.known.lock();
        if known.len() >= MOST_NAMES {
            known.retain(|_, name| name.borrow().is_looked_up());
        }
        Arc::clone(known.entry(name.to_owned()).or_default())
    }

    async fn look(self: Arc<Self>, name: String, known: Arc<watch::Sender<KnownName>>) {
        let hung = known.borrow().hangs();
        let permits = if hung { &self.hanging } else { &self.prompt };
        let Ok(permit) = permits.acquire().await else { return };
        let mut lookup = self.ask(&name, Family::Any);
        if let Ok(answer) = timeout(PROMPT, &mut lookup).await {
            return known.send_modify(|known| known.ended(received(answer), false, Instant::now()));
        }
        known.send_modify(KnownName::hang);
        // A prompt name's permit is for names that are answered.
        let _permit = hung.then_some(permit);
        // A name server that does not answer for IPv6 addresses delays the others, too.
        let answer = tokio::select! {
            answer = &mut lookup => answer,
            Ok(Ok(some)) = self.ask(&name, Family::V4) => {
                known.send_modify(|known| known.answered(some, Instant::now()));
                lookup.await
            }
        };
        known.send_modify(|known| known.ended(received(answer), true, Instant::now()));
    }

    /// Starts a thread that asks the resolver.
    fn ask(&self, name: &str, family: Family) -> oneshot::Receiver<Result<Vec<SocketAddr>, NoAddress>> {
        let (tell, answer) = oneshot::channel();
        let Ok(permit) = Arc::clone(&self.threads).try_acquire_owned() else {
            let _ = tell.send(Err(NoAddress::from(Shortage::Threads)));
            return answer;
        };
        let (resolve, name) = (Arc::clone(&self.resolve), name.to_owned());
        let started = thread::Builder::new().name("lookup".to_owned()).stack_size(STACK).spawn(move || {
            let _ = tell.send(resolve(&name, family));
            drop(permit);
        });
        // If it did not start, the sender is gone, which `received` tells.
        drop(started);
        answer
    }
}

/// The answer of a thread. Without one, the thread could not be started.
fn received<E>(answer: Result<Result<Vec<SocketAddr>, NoAddress>, E>) -> Result<Vec<SocketAddr>, NoAddress> {
    answer.unwrap_or(Err(NoAddress::from(Shortage::Threads)))
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Condvar,
        atomic::{AtomicUsize, Ordering},
    };

    /// The longest wait for a lookup that is answered. Only a failed test waits that long.
    const SOON: Duration = Duration::from_secs(20);

    /// Name servers of which one never answers while it is dead.
    #[derive(Default)]
    struct Servers {
        asked: AtomicUsize,
        alive: std::sync::Mutex<bool>,
        revived: Condvar,
    }

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 0).into()
    }

    impl Servers {
        /// Names that begin with "dead" are those of the dead server; of "half", it serves the IPv6 addresses.
        fn names(self: &Arc<Self>) -> Arc<Names> {
            let servers = Arc::clone(self);
            Arc::new(Names::new(Arc::new(move |name, family| {
                servers.asked.fetch_add(1, Ordering::Relaxed);
                let hangs = name.starts_with("dead") || name.starts_with("half") && family == Family::Any;
                let alive = servers.alive.lock().unwrap();
                drop(servers.revived.wait_while(alive, |alive| hangs && !*alive).unwrap());
                if name == "none" { Err(NoAddress::NotFound) } else { Ok(vec![address(1), address(2)]) }
            })))
        }

        fn revive(&self, alive: bool) {
            *self.alive.lock().unwrap() = alive;
            self.revived.notify_all();
        }
    }

    async fn soon<T>(wait: impl Future<Output = T>) -> T {
        timeout(SOON, wait).await.expect("a lookup is answered")
    }

    #[tokio::test]
    async fn names_that_hang_take_one_thread_each_and_no_other_name() {
        let servers = Arc::new(Servers::default());
        let names = servers.names();
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..1000 {
            let names = Arc::clone(&names);
            // 300 names, more than prompt lookups may run at once, each requested by some streams.
            waiting.spawn(async move { names.lookup(&format!("dead-{}", n % 300)).await });
        }
        assert_eq!(soon(names.lookup("good")).await, Ok(vec![address(1), address(2)]));
        assert_eq!(soon(names.lookup("none")).await, Err(NoAddress::NotFound));
        // Two threads of a name: all addresses, and IPv4 ones alone.
        assert!(servers.asked.load(Ordering::Relaxed) <= 2 * 300 + 2);
        servers.revive(true);
        while let Some(answer) = soon(waiting.join_next()).await {
            assert!(answer.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn the_earlier_answer_is_used_while_the_name_server_is_silent() {
        let servers = Arc::new(Servers::default());
        let names = servers.names();
        servers.revive(true);
        soon(names.lookup("dead")).await.unwrap();
        servers.revive(false);
        for _ in 0..3 {
            soon(names.lookup("dead")).await.unwrap();
        }
        servers.revive(true);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_for_ipv6_addresses_delays_no_ipv4_address() {
        let servers = Arc::new(Servers::default());
        soon(servers.names().lookup("half")).await.unwrap();
        servers.revive(true);
    }

    #[tokio::test]
    async fn the_address_that_worked_is_first_and_one_that_failed_is_last() {
        let servers = Arc::new(Servers::default());
        let names = servers.names();
        names.worked("good", address(2));
        assert_eq!(soon(names.lookup("good")).await, Ok(vec![address(2), address(1)]));
        names.failed("good", address(2));
        assert_eq!(soon(names.lookup("good")).await, Ok(vec![address(1), address(2)]));
    }
}
