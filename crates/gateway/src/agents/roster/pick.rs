//! Picks the agent for a stream, and records the results of streams.
//!
//! Invariant: a stream never goes to a former target once an agent has acknowledged the newer one. Agents with an older
//! generation of the same target continue to serve.

use super::{Acknowledgement, CarrierPool, Connected, Roster};
use crate::agents::balancer::{Candidate, Fitness, Record, choose};
use std::{sync::Arc, time::Instant};
use wicketgate_model::{AgentId, Generation, ShareId};

/// The agent that was picked for a stream.
pub(in crate::agents) struct Pick {
    pub(in crate::agents) agent: AgentId,
    pub(super) session: u64,
    pub(in crate::agents) generation: Generation,
    pub(in crate::agents) carriers: Arc<CarrierPool>,
    /// It has no failures: a successful stream need not be recorded.
    pub(in crate::agents) is_well: bool,
}

/// The result of a stream, as far as it concerns its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agents) enum Shown {
    Well,
    /// The agent gives no carrier, or no answer.
    AgentFails,
    /// The agent does not reach the target.
    TargetFails,
    Draining,
    /// It has disconnected.
    Gone,
}

impl Acknowledgement {
    /// The fitness of the target. An agent that reports it unreachable keeps probing it and reports its return.
    fn fitness(&self, now: Instant) -> Fitness {
        match &self.record {
            _ if self.unreachable.is_some() => Fitness::Ejected,
            Some(record) => record.fitness(now),
            None => Fitness::Well,
        }
    }
}

impl Roster {
    /// Picks an agent among those that serve the share and were not tried.
    pub(in crate::agents) fn pick(
        &mut self,
        share: ShareId,
        tried: &[AgentId],
        now: Instant,
    ) -> Option<Pick> {
        let wanted = self.shares.get(&share)?;
        let agents = &self.environments.get(&wanted.environment)?.agents;
        let able = || {
            agents.iter().filter_map(|agent| {
                let connected = self.connected.get(agent).filter(|c| !c.draining)?;
                let said = connected.said.get(&share)?;
                Some((said.acknowledged?, said, connected))
            })
        };
        // An agent with an older generation would dial the former target.
        let newest = able().map(|(generation, ..)| generation).max()?;
        let least = newest.min(wanted.same_target_since);
        let candidates =
            able().filter(|(g, _, c)| *g >= least && !tried.contains(&c.about.agent)).map(|(_, said, c)| {
                let well_since = [Some(&c.record), said.record.as_ref()].into_iter().flatten();
                Candidate {
                    replica: c.about.agent,
                    fitness: Fitness::of([c.record.fitness(now), said.fitness(now)]),
                    streams: c.carriers.streams.active(),
                    well_since: well_since.map(Record::well_since).max().unwrap_or(now),
                    last_chosen: c.last_picked,
                }
            });
        let Candidate { replica, fitness, .. } = choose(candidates, now)?;
        self.picks += 1;
        let connected = self.connected.get_mut(&replica)?;
        let said = connected.said.get_mut(&share)?;
        connected.last_picked = self.picks;
        connected.record.try_it(now);
        if let Some(record) = &mut said.record {
            record.try_it(now);
        }
        Some(Pick {
            agent: replica,
            session: connected.session,
            generation: said.acknowledged?,
            carriers: Arc::clone(&connected.carriers),
            is_well: fitness == Fitness::Well,
        })
    }

    /// Records the result of a stream at its agent.
    pub(in crate::agents) fn shown(&mut self, pick: &Pick, share: ShareId, shown: Shown, now: Instant) {
        let Some(connected) = self.connected.get_mut(&pick.agent).filter(|c| c.session == pick.session)
        else {
            return;
        };
        let Connected { record, said, .. } = connected;
        let said = said.get_mut(&share).filter(|s| s.acknowledged == Some(pick.generation));
        match shown {
            Shown::Well => {
                record.worked(now);
                if let Some(record) = said.and_then(|s| s.record.as_mut()) {
                    record.worked(now);
                }
            }
            Shown::AgentFails => record.failed(now),
            Shown::TargetFails => {
                record.worked(now);
                if let Some(said) = said {
                    said.record.get_or_insert(Record::new(now)).failed(now);
                }
            }
            Shown::Draining => self.draining(pick.agent, pick.session),
            Shown::Gone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Session,
            tests::{agent, connect, share, share_to},
        },
        *,
    };
    use std::time::Duration;
    use wicketgate_transport::control::TargetHealth;

    struct Scene {
        roster: Roster,
        share: ShareId,
        now: Instant,
        sessions: Vec<Session>,
    }

    /// Two agents that have acknowledged generation 1.
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
            let session = self.sessions[usize::try_from(n - 1).unwrap()].number;
            self.roster.acknowledged(agent(n), session, self.share, Generation::new(generation));
        }

        fn pick(&mut self, tried: &[u128]) -> Option<Pick> {
            let tried: Vec<_> = tried.iter().map(|n| agent(*n)).collect();
            self.roster.pick(self.share, &tried, self.now)
        }

        /// The agents that the next streams go to, two of each that is equal.
        fn picked(&mut self) -> Vec<AgentId> {
            let mut picked: Vec<_> = (0..4).filter_map(|_| Some(self.pick(&[])?.agent)).collect();
            picked.sort_unstable();
            picked.dedup();
            picked
        }

        fn shown(&mut self, pick: &Pick, shown: Shown) {
            self.roster.shown(pick, self.share, shown, self.now);
        }
    }

    #[test]
    fn a_picked_stream_is_aborted_by_a_bar_although_its_agent_has_reconnected() {
        let mut scene = scene();
        let pick = scene.pick(&[2]).unwrap();
        connect(&mut scene.roster, 1);
        scene.roster.bar(agent(1));
        assert!(pick.carriers.streams.abort.token().is_cancelled());
    }

    #[test]
    fn new_streams_never_go_to_a_former_target() {
        let mut scene = scene();
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
        scene.roster.assign(&share_to(2, "10.0.0.2:1"));
        assert_eq!(scene.picked(), [agent(1), agent(2)], "nobody has the newer one yet");
        scene.acknowledge(2, 2);
        assert_eq!(scene.picked(), [agent(2)]);
        assert_eq!(scene.pick(&[]).unwrap().generation, Generation::new(2));
        assert!(scene.pick(&[2]).is_none(), "not even after a failed dial");
        scene.acknowledge(1, 2);
        assert_eq!(scene.pick(&[2]).unwrap().agent, agent(1));
    }

    #[test]
    fn an_agent_that_is_behind_serves_on_where_the_target_is_the_same() {
        let mut scene = scene();
        scene.roster.assign(&share(2));
        scene.acknowledge(2, 2);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
        assert_eq!(scene.pick(&[2]).unwrap().generation, Generation::FIRST, "as it has it");
        scene.roster.assign(&share_to(3, "10.0.0.2:1"));
        scene.roster.assign(&share_to(4, "10.0.0.2:1"));
        scene.acknowledge(2, 4);
        assert_eq!(scene.picked(), [agent(2)]);
        scene.acknowledge(1, 3);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
    }

    #[test]
    fn a_target_that_one_agent_does_not_reach_is_asked_for_through_the_other() {
        let mut scene = scene();
        let first = scene.pick(&[2]).unwrap();
        scene.shown(&first, Shown::TargetFails);
        assert_eq!(scene.picked(), [agent(2)]);
        assert_eq!(scene.pick(&[2]).unwrap().agent, agent(1), "better than nobody");
        // One stream tries it.
        scene.now += Duration::from_millis(1001);
        let trial = scene.pick(&[]).unwrap();
        assert_eq!((trial.agent, trial.is_well), (agent(1), false));
        assert_eq!(scene.picked(), [agent(2)]);
        scene.shown(&trial, Shown::TargetFails);
        scene.now += Duration::from_millis(1001);
        assert_eq!(scene.picked(), [agent(2)], "for two seconds now");
        scene.now += Duration::from_secs(1);
        let trial = scene.pick(&[]).unwrap();
        scene.shown(&trial, Shown::Well);
        scene.now += Duration::from_secs(60);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
        // What the agent sees itself counts as well.
        let session = scene.sessions[0].number;
        let health = |scene: &mut Scene, health| {
            scene.roster.health(agent(1), session, scene.share, health, scene.now);
        };
        health(&mut scene, TargetHealth::Unreachable("no".to_owned()));
        scene.now += Duration::from_secs(3600);
        assert_eq!(scene.picked(), [agent(2)]);
        health(&mut scene, TargetHealth::Ok);
        scene.now += Duration::from_secs(60);
        assert_eq!(scene.picked(), [agent(1), agent(2)]);
    }

    #[test]
    fn an_agent_that_fails_is_ejected_for_all_shares_and_one_that_is_about_to_end_gets_nothing() {
        let mut scene = scene();
        let first = scene.pick(&[2]).unwrap();
        scene.shown(&first, Shown::AgentFails);
        assert_eq!(scene.picked(), [agent(2)]);
        scene.roster.draining(agent(2), scene.sessions[1].number);
        assert_eq!(scene.picked(), [agent(1)]);
        scene.shown(&first, Shown::Draining);
        assert!(scene.pick(&[]).is_none());
        assert!(scene.roster.standing(scene.share).ready.is_none());
    }
}
