//! Several servers that write at the same time, and readers that follow the revision.

use crate::{
    database::{open, place},
    site::{ALL, Site, context, link, now},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use wicketgate_model::{
    AgentId, Connection, ConnectionState, EnvironmentId, FrontdoorId, Generation, IngressPort, ShareId,
    Standing, Status, TunnelId,
};
use wicketgate_store::{
    Change, GatewayEpoch, Resource, Revision, ShareRow, ShareSpec, StatusUpdate, Store, StoreError,
};

const SERVERS: usize = 3;
const WRITERS: u16 = 32;
/// Writes of each writer.
const WRITES: u16 = 12;
/// For all of it, on a busy machine.
const BOUND: Duration = Duration::from_secs(100);

/// Stores as those of several servers: of one PostgreSQL database, or the one store of a SQLite file.
async fn servers(dir: &TempDir) -> Vec<Store> {
    let place = place(dir);
    let mut stores = vec![open(&place, dir).await.unwrap()];
    while stores.len() < SERVERS {
        let is_shared = place.starts_with("postgres");
        stores.push(if is_shared { open(&place, dir).await.unwrap() } else { stores[0].clone() });
    }
    stores
}

/// What all tasks know.
#[derive(Clone)]
struct Installation {
    frontdoor: FrontdoorId,
    tunnel: TunnelId,
    environment: EnvironmentId,
    agent: AgentId,
    epoch: GatewayEpoch,
}

impl Installation {
    fn share(&self, name: &str, port: u16) -> ShareSpec {
        let port = IngressPort::try_from(i64::from(port)).unwrap();
        let (name, target) = (name.parse().unwrap(), "10.20.100.1:8443".parse().unwrap());
        ShareSpec::new(self.tunnel, self.environment, name, target, port)
    }

    /// Creates, changes and deletes shares, with writes between them that fail. Returns the shares' last generations.
    async fn write(self, store: Store, writer: u16) -> BTreeMap<ShareId, Generation> {
        let mut shares: Vec<ShareRow> = Vec::new();
        for n in 0..WRITES {
            let port = 1000 + 2 * (writer * WRITES + n);
            let Some(last) = shares.last_mut().filter(|_| !(writer + n).is_multiple_of(4)) else {
                let spec = self.share(&format!("share-{port}"), port);
                shares.push(store.create_share(self.frontdoor, &spec, &context()).await.unwrap());
                continue;
            };
            let (id, generation) = (last.id, last.generation);
            match (writer + n) % 4 {
                1 => {
                    let taken = self.share(last.spec.name.as_str(), port);
                    let refused = store.create_share(self.frontdoor, &taken, &context()).await;
                    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
                }
                2 => {
                    let spec = self.share(&format!("share-{port}"), port);
                    let changed =
                        store.replace_share(self.frontdoor, id, generation, &spec, &context()).await;
                    *last = changed.unwrap();
                    let stale = store.replace_share(self.frontdoor, id, generation, &spec, &context()).await;
                    assert!(matches!(stale, Err(StoreError::Stale)), "{stale:?}");
                }
                _ if n % 2 == 0 => *last = store.delete_share(self.frontdoor, id, &context()).await.unwrap(),
                _ => {}
            }
            if last.standing.status == Status::Deleting {
                let spec = self.share(&format!("share-{}", port + 1), port + 1);
                shares.push(store.create_share(self.frontdoor, &spec, &context()).await.unwrap());
            }
        }
        shares.into_iter().map(|share| (share.id, share.generation)).collect()
    }

    /// Writes what gateways and background tasks do, which locks the same rows in other orders.
    async fn maintain(self, store: Store, is_done: Arc<AtomicBool>) {
        let mut turn = 0_u8;
        while !is_done.load(Ordering::Relaxed) {
            turn = turn.wrapping_add(1);
            store.agent_connected(&self.epoch, &link(self.agent), now()).await.unwrap();
            let name = Some(format!("agent-{turn}").parse().unwrap());
            store.rename_agent(self.frontdoor, self.agent, name, &context()).await.unwrap();
            let state = if turn.is_multiple_of(2) { ConnectionState::Up } else { ConnectionState::Down };
            let connection = Connection { state, ..Connection::down(now()) };
            store.record_connections(&self.epoch, &[(self.tunnel, connection)], now()).await.unwrap();
            store.agent_disconnected(&self.epoch, self.agent, now()).await.unwrap();
            store.erase_expired_keys(now()).await.unwrap();
            store.prune(now()).await.unwrap();
        }
    }
}

/// Follows the changes, and writes statuses of what it sees in an order of its own. Returns the last generation of each share.
async fn follow(
    store: Store,
    (server, epoch): (usize, GatewayEpoch),
    is_done: Arc<AtomicBool>,
) -> BTreeMap<ShareId, Generation> {
    let (mut since, mut seen) = (Revision::default(), BTreeMap::new());
    loop {
        // From before the last look, which then finds all there is.
        let was_done = is_done.load(Ordering::Relaxed);
        let mut found = Vec::new();
        let take = |change| {
            if let Change::Share(share) = change {
                seen.insert(share.id, share.generation);
                found.push(share);
            }
        };
        let newest = store.changes_of(epoch.gateway(), since, take).await.unwrap();
        assert!(newest >= since);
        since = newest;
        if was_done {
            return seen;
        }
        let middle = found.len() * server / SERVERS;
        found.rotate_left(middle);
        let updates: Vec<_> = found.iter().map(|share| settled(share)).collect();
        store.update_statuses(&epoch, &updates).await.unwrap();
    }
}

fn settled(share: &ShareRow) -> StatusUpdate {
    let is_deleted = matches!(share.standing.status, Status::Deleting | Status::Deleted);
    let standing = Standing {
        status: if is_deleted { Status::Deleted } else { Status::Deployed },
        since: now(),
        observed_generation: Some(share.generation),
        detail: None,
    };
    StatusUpdate { resource: Resource::Share(share.id), generation: share.generation, standing }
}

async fn ended<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(timeout(BOUND, task).await.unwrap().unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_several_servers_miss_no_row_while_many_write() {
    let dir = TempDir::new().unwrap();
    let stores = servers(&dir).await;
    let Site { frontdoor, tunnel, enrolled, epoch } = Site::new(&stores[0]).await;
    let site =
        Installation { frontdoor, tunnel, environment: enrolled.environment, agent: enrolled.agent, epoch };
    let is_done = Arc::new(AtomicBool::new(false));
    let (mut readers, mut others) = (Vec::new(), Vec::new());
    for (n, store) in stores.iter().enumerate() {
        readers.push(tokio::spawn(follow(store.clone(), (n, epoch), Arc::clone(&is_done))));
        others.push(tokio::spawn(site.clone().maintain(store.clone(), Arc::clone(&is_done))));
    }
    let writers = (0..WRITERS).map(|n| {
        let store = stores[usize::from(n) % SERVERS].clone();
        tokio::spawn(site.clone().write(store, n))
    });
    let written: BTreeMap<_, _> = ended(writers.collect()).await.into_iter().flatten().collect();
    is_done.store(true, Ordering::Relaxed);
    for seen in ended(readers).await {
        let missed: Vec<_> = written.iter().filter(|(id, last)| seen.get(id) != Some(last)).collect();
        assert!(missed.is_empty(), "of {}, a reader has missed {missed:?}", written.len());
        assert_eq!(seen.len(), written.len(), "a reader has seen a write that was undone");
    }
    ended(others).await;
    let live = stores[0].shares(frontdoor, &ALL).await.unwrap();
    assert_eq!(
        live.total,
        u64::try_from(live.rows.len()).unwrap(),
        "the numbers of shares are counted by each write"
    );
    for store in stores {
        store.close().await;
    }
}
