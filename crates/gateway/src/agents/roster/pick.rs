//! Picks the agent for a stream, and records the results of streams.
//!
//! Invariant: a stream never goes to a former target once an agent has acknowledged the newer one. Agents with an older
//! generation of the same target continue to serve.

use super::{Connected, Hearing, Roster, Session, acknowledgement::Acknowledgement, duty::ShareInUse};
use crate::agents::{
    balancer::{Candidate, Fitness, Record, choose},
    dial_failure::StreamOutcome,
};
use std::{sync::Arc, time::Instant};
use wicketgate_model::{AgentId, Generation, ShareId};

/// The agent that was picked for a stream.
pub(crate) struct Pick {
    pub(crate) session: Arc<Session>,
    pub(crate) generation: Generation,
    /// It has no failures: a successful stream need not be recorded.
    pub(crate) is_well: bool,
    pub(crate) in_use: ShareInUse,
}

impl Roster {
    /// Picks an agent among those that serve the share and were not tried.
    pub(crate) fn pick(&mut self, share: ShareId, tried: &[AgentId], now: Instant) -> Option<Pick> {
        let is_probed = self.shares.get(&share)?.probes.is_some();
        let candidates = self.eligible(share, tried)?.map(|(reports, connected)| {
            let records = [Some(&connected.record), reports.record.as_ref()].into_iter().flatten();
            let own = match connected.hearing.0 {
                Hearing::Answers => connected.record.fitness(now),
                Hearing::Suspected | Hearing::Silent => Fitness::Ejected,
            };
            Candidate {
                replica: connected.about.agent,
                fitness: Fitness::of(own, reports.fitness(is_probed, now)),
                streams: connected.session.carriers.streams.active(),
                well_since: records.map(|record| record.well_since).max().unwrap_or(now),
                last_chosen: connected.last_picked,
            }
        });
        let Candidate { replica, fitness, .. } = choose(candidates, now)?;
        self.picks += 1;
        let connected = self.connected.get_mut(&replica)?;
        let reports = connected.acknowledgements.get_mut(&share)?;
        connected.last_picked = self.picks;
        connected.record.try_it(now);
        if let Some(record) = &mut reports.record {
            record.try_it(now);
        }
        let (session, generation) = (Arc::clone(&connected.session), reports.acknowledged?);
        let (in_use, is_first) = self.shares.get_mut(&share)?.duty.begin(now);
        if is_first {
            self.in_use.insert(share);
            self.unelected.insert(share);
        }
        Some(Pick { session, generation, is_well: fitness == Fitness::Well, in_use })
    }

    /// The agents that serve the share and were not tried.
    fn eligible<'a>(
        &'a self,
        share: ShareId,
        tried: &'a [AgentId],
    ) -> Option<impl Iterator<Item = (&'a Acknowledgement, &'a Connected)>> {
        let assigned = self.shares.get(&share)?;
        let agents = &self.environments.get(&assigned.environment)?.agents;
        let able = move || {
            agents.iter().filter_map(move |agent| {
                let connected = self.connected.get(agent).filter(|c| !c.draining)?;
                let reports = connected.acknowledgements.get(&share)?;
                Some((reports.acknowledged?, reports, connected))
            })
        };
        // An agent with an older generation would dial the former target.
        let newest = able().map(|(generation, ..)| generation).max()?;
        let least = newest.min(assigned.same_target_since);
        let eligible = able().filter(move |(g, _, c)| *g >= least && !tried.contains(&c.about.agent));
        Some(eligible.map(|(_, reports, connected)| (reports, connected)))
    }

    /// Whether an agent that answers serves the share and was not tried.
    pub(crate) fn has_answering(&self, share: ShareId, tried: &[AgentId]) -> bool {
        let mut eligible = self.eligible(share, tried).into_iter().flatten();
        eligible.any(|(_, connected)| connected.hearing.0 == Hearing::Answers)
    }

    /// Records the result of a stream at its agent.
    pub(crate) fn record(&mut self, pick: &Pick, share: ShareId, outcome: StreamOutcome, now: Instant) {
        let Some(Connected { record, acknowledgements, .. }) = self.connected(&pick.session) else { return };
        let reports = acknowledgements.get_mut(&share).filter(|r| r.acknowledged == Some(pick.generation));
        match outcome {
            StreamOutcome::Well => {
                record.worked(now);
                if let Some(record) = reports.and_then(|r| r.record.as_mut()) {
                    record.worked(now);
                }
            }
            StreamOutcome::AgentFails => record.failed(now),
            StreamOutcome::TargetFails => {
                record.worked(now);
                if let Some(reports) = reports {
                    reports.record.get_or_insert(Record::new(now)).failed(now);
                }
            }
            StreamOutcome::Draining => {
                self.draining(&pick.session);
            }
            StreamOutcome::Gone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{agent, connect, share, share_to},
        *,
    };
    use std::time::Duration;
    use wicketgate_model::{AgentDesired, Problem, Reason};

    struct Scene {
        roster: Roster,
        share: ShareId,
        now: Instant,
        sessions: Vec<Arc<Session>>,
    }

    /// A roster with two agents that have acknowledged generation 1.
    fn scene() -> Scene {
        let mut roster = Roster::default();
        roster.assign(&share(1));
        let sessions: Vec<_> = (1..3).map(|n| connect(&mut roster, n)).collect();
        let mut scene = Scene { roster, share: share(1).id, now: Instant::now(), sessions };
        scene.acknowledge(1, 1);
        scene.acknowledge(2, 1);
        scene
    }

    impl Scene {
        fn acknowledge(&mut self, n: u128, generation: u64) {
            let session = &self.sessions[usize::try_from(n - 1).unwrap()];
            self.roster.acknowledged(session, self.share, Generation::new(generation));
        }

        fn pick(&mut self, tried: &[u128]) -> Option<Pick> {
            let tried: Vec<_> = tried.iter().map(|n| agent(*n)).collect();
            self.roster.pick(self.share, &tried, self.now)
        }

        /// The agents of the next four streams, without duplicates.
        fn picked(&mut self) -> Vec<AgentId> {
            let mut picked: Vec<_> = (0..4).filter_map(|_| Some(self.pick(&[])?.session.agent)).collect();
            picked.sort_unstable();
            picked.dedup();
            picked
        }

        fn record(&mut self, pick: &Pick, outcome: StreamOutcome) {
            self.roster.record(pick, self.share, outcome, self.now);
        }
    }

    #[test]
    fn a_picked_stream_is_aborted_by_a_bar_although_its_agent_has_reconnected() {
        let mut scene = scene();
        let pick = scene.pick(&[2]).unwrap();
        connect(&mut scene.roster, 1);
        scene.roster.name(agent(1), Some(AgentDesired::Barred));
        assert!(pick.session.carriers.streams.abort.token().is_cancelled());
    }

    #[test]
    fn new_streams_never_go_to_a_former_target() {
        let mut scene = scene();
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
        scene.roster.assign(&share_to(2, "10.0.0.2:1"));
        assert_eq!(scene.picked(), [agent(1), agent(2)], "no agent has the newer one yet");
        scene.acknowledge(2, 2);
        assert_eq!(scene.picked(), [agent(2)]);
        assert_eq!(scene.pick(&[]).unwrap().generation, Generation::new(2));
        assert!(scene.pick(&[2]).is_none(), "not even after a failed dial");
        scene.acknowledge(1, 2);
        assert_eq!(scene.pick(&[2]).unwrap().session.agent, agent(1));
    }

    #[test]
    fn an_agent_with_an_older_generation_of_the_same_target_continues_to_serve() {
        let mut scene = scene();
        scene.roster.assign(&share(2));
        scene.acknowledge(2, 2);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
        assert_eq!(scene.pick(&[2]).unwrap().generation, Generation::FIRST, "its own generation");
        scene.roster.assign(&share_to(3, "10.0.0.2:1"));
        scene.roster.assign(&share_to(4, "10.0.0.2:1"));
        scene.acknowledge(2, 4);
        assert_eq!(scene.picked(), [agent(2)]);
        scene.acknowledge(1, 3);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
    }

    #[test]
    fn a_target_that_one_agent_does_not_reach_is_dialled_through_the_other() {
        let mut scene = scene();
        let first = scene.pick(&[2]).unwrap();
        scene.record(&first, StreamOutcome::TargetFails);
        assert_eq!(scene.picked(), [agent(2)]);
        assert_eq!(scene.pick(&[2]).unwrap().session.agent, agent(1), "better than none");
        // One stream tries it.
        scene.now += Duration::from_millis(1001);
        let trial = scene.pick(&[]).unwrap();
        assert_eq!((trial.session.agent, trial.is_well), (agent(1), false));
        assert_eq!(scene.picked(), [agent(2)]);
        scene.record(&trial, StreamOutcome::TargetFails);
        scene.now += Duration::from_millis(1001);
        assert_eq!(scene.picked(), [agent(2)], "for two seconds now");
        scene.now += Duration::from_secs(1);
        let trial = scene.pick(&[]).unwrap();
        scene.record(&trial, StreamOutcome::Well);
        scene.now += Duration::from_secs(60);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
        // The agent's own reports count, too.
        let health = |scene: &mut Scene, health| {
            scene.roster.health(&scene.sessions[0], scene.share, health, scene.now);
        };
        health(&mut scene, Some(Problem::new(Reason::TargetUnreachable, "no")));
        scene.now += Duration::from_secs(3600);
        assert_eq!(scene.picked(), [agent(2)]);
        health(&mut scene, None);
        scene.now += Duration::from_secs(60);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
    }

    #[test]
    fn a_failing_agent_is_ejected_for_all_shares_and_a_draining_one_gets_no_streams() {
        let mut scene = scene();
        let first = scene.pick(&[2]).unwrap();
        scene.record(&first, StreamOutcome::AgentFails);
        assert_eq!(scene.picked(), [agent(2)]);
        scene.roster.draining(&scene.sessions[1]);
        assert_eq!(scene.picked(), [agent(1)]);
        scene.record(&first, StreamOutcome::Draining);
        assert!(scene.pick(&[]).is_none());
        assert!(scene.roster.standing(scene.share).ready.is_none());
    }
}
