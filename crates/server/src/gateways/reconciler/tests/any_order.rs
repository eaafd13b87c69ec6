//! Writes, reports, failures and restarts in any order.

use super::bench::Bench;
use jiff::ToSpan as _;
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};
use wicketgate_model::{Problem, Reason, Status};

#[derive(Debug, Clone)]
enum Step {
    Create,
    Retarget(Index),
    Delete(Index),
    Activate,
    Hear,
    Report,
    Fail(bool),
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Create),
        3 => any::<Index>().prop_map(Step::Retarget),
        2 => any::<Index>().prop_map(Step::Delete),
        4 => Just(Step::Activate),
        3 => Just(Step::Hear),
        3 => Just(Step::Report),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => (1i64..40).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: once both sides have said all they have to say, every share that was
    /// not deleted is deployed as it was last written, and every deleted one is gone at the gateway.
    #[test]
    fn it_always_gets_there(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut b = Bench::new().await;
            let (mut live, mut deleted) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Create => live.push(b.create().await),
                    Step::Retarget(which) if !live.is_empty() => b.retarget(*which.get(&live)).await,
                    Step::Delete(which) if !live.is_empty() => {
                        let id = live.swap_remove(which.index(live.len()));
                        b.delete(id).await;
                        deleted.push(id);
                    }
                    Step::Retarget(_) | Step::Delete(_) => {}
                    Step::Activate => b.activate().await,
                    Step::Hear => drop(b.gateway.hear()),
                    Step::Report => b.gateway.report(&b.reconciler).await,
                    Step::Fail(fails) => {
                        b.gateway.problem = fails.then(|| Problem::new(Reason::PortInUse, "somebody has it"));
                    }
                    Step::Pass(seconds) => b.now += seconds.seconds(),
                    Step::Restart => b.restart(),
                }
                for id in &live {
                    let row = b.share(*id).await;
                    let deployed = row.standing.status == Status::Deployed;
                    prop_assert!(!deployed || row.standing.observed_generation == Some(row.generation));
                }
            }
            b.gateway.problem = None;
            b.settle().await;
            for id in live {
                let row = b.share(id).await;
                prop_assert_eq!(row.standing.status, Status::Deployed);
                let served = &b.gateway.desired.shares[&id];
                prop_assert_eq!(served.generation, row.generation);
                prop_assert_eq!(b.ca.certificate().verify(&served.assignment).unwrap().target, row.target);
            }
            for id in deleted {
                prop_assert_eq!(b.share(id).await.standing.status, Status::Deleted);
                prop_assert!(!b.gateway.desired.shares.contains_key(&id));
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
