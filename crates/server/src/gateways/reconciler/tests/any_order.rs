//! Writes, reports, failures and restarts in any order.

use super::bench::Bench;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};
use wicketgate_model::{
    Connection, ConnectionState, Generation, Problem, Reason, ShareId, Standing, Status, TunnelId,
};

#[derive(Debug, Clone)]
enum Step {
    Create,
    Retarget(Index),
    Delete(Index),
    CreateTunnel,
    /// The second field is the grace period of the previous key in seconds.
    RotateKey(Index, i64),
    DeleteTunnel(Index),
    Activate,
    Receive,
    Report,
    Fail(bool),
    /// Whether the gateway has not checked its tunnels yet.
    Pending(bool),
    Connect(bool),
    Drain,
    ReadAll,
    Pass(i64),
    /// So long that assignments are renewed.
    PassDays,
    Restart,
    /// The gateway finds another server. What was under way is lost.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Create),
        3 => any::<Index>().prop_map(Step::Retarget),
        2 => any::<Index>().prop_map(Step::Delete),
        1 => Just(Step::CreateTunnel),
        2 => (any::<Index>(), 0i64..60).prop_map(|(which, grace)| Step::RotateKey(which, grace)),
        1 => any::<Index>().prop_map(Step::DeleteTunnel),
        4 => Just(Step::Activate),
        3 => Just(Step::Receive),
        3 => Just(Step::Report),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => any::<bool>().prop_map(Step::Pending),
        1 => any::<bool>().prop_map(Step::Connect),
        1 => Just(Step::Drain),
        1 => Just(Step::ReadAll),
        1 => (1i64..40).prop_map(Step::Pass),
        1 => Just(Step::PassDays),
        1 => Just(Step::Restart),
        2 => Just(Step::Reconnect),
    ]
}

/// The state of a run: the ids of the rows that its steps wrote.
struct World {
    b: Bench,
    shares: Vec<ShareId>,
    deleted_shares: Vec<ShareId>,
    tunnels: Vec<TunnelId>,
    deleted_tunnels: Vec<TunnelId>,
}

impl World {
    async fn new() -> Self {
        let b = Bench::new().await;
        let tunnels = vec![b.tunnel];
        Self { b, shares: Vec::new(), deleted_shares: Vec::new(), tunnels, deleted_tunnels: Vec::new() }
    }

    async fn take(&mut self, step: Step) {
        let b = &mut self.b;
        match step {
            Step::Create if self.tunnels.contains(&b.tunnel) => self.shares.push(b.create().await),
            Step::Retarget(which) if !self.shares.is_empty() => b.retarget(*which.get(&self.shares)).await,
            Step::Delete(which) if !self.shares.is_empty() => {
                let id = self.shares.swap_remove(which.index(self.shares.len()));
                b.delete(id).await;
                self.deleted_shares.push(id);
            }
            Step::CreateTunnel => self.tunnels.push(b.create_tunnel().await),
            Step::RotateKey(which, grace) if !self.tunnels.is_empty() => {
                b.rotate_key(*which.get(&self.tunnels), SignedDuration::from_secs(grace)).await;
            }
            Step::DeleteTunnel(which) if !self.tunnels.is_empty() => {
                let place = which.index(self.tunnels.len());
                if b.delete_tunnel(self.tunnels[place]).await {
                    self.deleted_tunnels.push(self.tunnels.swap_remove(place));
                }
            }
            Step::Create
            | Step::Retarget(_)
            | Step::Delete(_)
            | Step::RotateKey(..)
            | Step::DeleteTunnel(_) => {}
            Step::Activate => b.activate().await,
            Step::Receive => drop(b.gateway.receive()),
            Step::Report => b.gateway.report(&b.reconciler).await,
            Step::Fail(fails) => {
                b.gateway.problem = fails.then(|| Problem::new(Reason::PortInUse, "the port is in use"));
            }
            Step::Pending(is_pending) => {
                b.gateway.tunnels_problem = is_pending.then(|| Problem::new(Reason::Pending, "soon"));
            }
            Step::Connect(is_up) => {
                let state = if is_up { ConnectionState::Up } else { ConnectionState::Down };
                b.gateway.connection = Connection { state, ..Connection::down(b.now) };
            }
            Step::Drain => b.gateway.drain(&b.reconciler, b.now).await,
            Step::ReadAll => b.reconciler.read_all_at = Some(Timestamp::MIN),
            Step::Pass(seconds) => b.now += seconds.seconds(),
            Step::PassDays => b.now += SignedDuration::from_hours(3 * 24),
            Step::Restart => b.restart().await,
            Step::Reconnect => b.reconnect().await,
        }
    }

    /// The generations and standings of all rows that are not deleted.
    async fn standings(&self) -> Vec<(Generation, Standing)> {
        let mut all = Vec::new();
        for id in &self.shares {
            let row = self.b.share(*id).await;
            all.push((row.generation, row.standing));
        }
        for id in &self.tunnels {
            let row = self.b.tunnel_row(*id).await;
            all.push((row.generation, row.standing));
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any steps in any order, `DEPLOYED` refers to the newest generation. Once both sides have exchanged all
    /// messages, every tunnel and share that was not deleted is deployed as it was last written, and the gateway no
    /// longer has the deleted ones.
    #[test]
    fn the_desired_state_is_always_reached(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
                for (generation, standing) in world.standings().await {
                    let deployed = standing.status == Status::Deployed;
                    prop_assert!(!deployed || standing.observed_generation == Some(generation));
                }
            }
            world.b.gateway.problem = None;
            world.b.gateway.tunnels_problem = None;
            world.b.settle().await;
            for (_, standing) in world.standings().await {
                prop_assert_eq!(standing.status, Status::Deployed);
            }
            let World { b, shares, deleted_shares, tunnels, deleted_tunnels } = world;
            let desired = b.gateway.desired();
            prop_assert_eq!((desired.shares.len(), desired.tunnels.len()), (shares.len(), tunnels.len()));
            for id in shares {
                let (row, served) = (b.share(id).await, &desired.shares[&id]);
                prop_assert_eq!(served.generation, row.generation);
                prop_assert_eq!(b.ca.certificate().verify(&served.assignment).unwrap().target, row.spec.target);
            }
            for id in tunnels {
                let (row, served) = (b.tunnel_row(id).await, &desired.tunnels[&id]);
                prop_assert_eq!((served.generation, served.initiate), (row.generation, row.spec.initiate));
                let valid = row.previous_keys.valid(b.now).map(|(key, _)| key);
                prop_assert!(served.keys.iter().eq(row.spec.pre_shared_key.iter().chain(valid)));
                prop_assert_eq!(row.connection.map(|c| c.state), Some(b.gateway.connection.state));
            }
            for id in deleted_shares {
                prop_assert_eq!(b.share(id).await.standing.status, Status::Deleted);
            }
            for id in deleted_tunnels {
                prop_assert_eq!(b.tunnel_row(id).await.standing.status, Status::Deleted);
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
