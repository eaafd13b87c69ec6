//! The open connections of a share, by their client's address, so that they can be reset.
//!
//! Invariant: an address has an entry while a connection from it is open. A connection takes the lock when it begins and when
//! it ends, and no other time.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use wicketgate_system::Mutex;
use wicketgate_transport::abort::Abort;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(Mutex<BTreeMap<IpAddr, Clients>>);

/// The connections of one address.
#[derive(Debug)]
struct Clients {
    /// Resets them.
    abort: Abort,
    open: u64,
}

/// One connection; it is open until the value is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    all: Arc<OpenConnections>,
    source: IpAddr,
    /// Triggered when the connection is to be reset.
    pub(crate) abort: Abort,
}

impl OpenConnections {
    /// A connection from `source` is open. `parent` ends it too.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr, parent: &Abort) -> OpenConnection {
        let source = source.to_canonical();
        let mut all = self.0.lock();
        let clients = all.entry(source).or_insert_with(|| Clients { abort: parent.child(), open: 0 });
        clients.open += 1;
        OpenConnection { all: Arc::clone(self), source, abort: clients.abort.clone() }
    }

    /// Resets the connections that are open now: those from `source`, or all. Returns how many.
    pub(crate) fn close(&self, source: Option<IpAddr>) -> u64 {
        let closed: Vec<_> = {
            let mut all = self.0.lock();
            match source {
                Some(source) => all.remove(&source).into_iter().collect(),
                None => std::mem::take(&mut *all).into_values().collect(),
            }
        };
        closed.iter().for_each(|clients| clients.abort.trigger());
        closed.iter().map(|clients| clients.open).sum()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        // After a reset, newer connections of the address have another entry.
        if let Some(clients) = all.get_mut(&self.source).filter(|clients| clients.abort.is_same(&self.abort))
        {
            clients.open -= 1;
            if clients.open == 0 {
                all.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_of_one_source_or_all_are_reset_and_counted_once() {
        let (open, share) = (Arc::new(OpenConnections::default()), Abort::default());
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let is_reset = |one: &OpenConnection| one.abort.token().is_cancelled();
        let (first, second, other) = (open.enter(a, &share), open.enter(a, &share), open.enter(b, &share));
        assert_eq!(open.close(Some([10, 0, 0, 3].into())), 0);
        drop(first);
        assert_eq!(open.close(Some(a)), 1);
        assert!(is_reset(&second) && !is_reset(&other));
        // The reset one ends after a newer connection of its client has begun.
        let newer = open.enter(a, &share);
        drop(second);
        assert!(!is_reset(&newer));
        assert_eq!(open.close(None), 2);
        assert!(is_reset(&newer) && is_reset(&other));
        drop((newer, other));
        assert!(open.close(None) == 0 && open.0.lock().is_empty());
    }

    #[test]
    fn an_address_without_connections_has_no_entry_and_its_share_ends_them_too() {
        let (open, share) = (Arc::new(OpenConnections::default()), Abort::default());
        drop(open.enter([10, 0, 0, 1].into(), &share));
        assert!(open.0.lock().is_empty());
        // A dual-stack socket has the address in another notation.
        let one = open.enter("::ffff:10.0.0.1".parse().unwrap(), &share);
        share.trigger();
        assert!(one.abort.token().is_cancelled());
        assert_eq!(open.close(Some([10, 0, 0, 1].into())), 1);
    }
}
