//! The lists of gateways that agents dial: kept in the database by one server, and signed and told by the server of each link.
//!
//! Only gateways that are linked over a network are told: the one of `up` is the only one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tracing::error;
use wicketgate_link::ToGateway;
use wicketgate_model::{EnvironmentId, GatewayList, SignedGatewayList};
use wicketgate_store::{EnvironmentGateways, Store};

use super::link_table::LinkTable;
use crate::background::{BackgroundTask, Outcome};

/// How often changes are looked for: an agent dials a new gateway twice as late at most.
const PERIOD: Duration = Duration::from_secs(1);
/// Of the time, the part in which rows are compared is one in so many: with very many shares it takes longer.
const RESTS: u32 = 20;
/// Lists in one message: some hundred kilobytes with as many gateways as a list may have, and a tenth of that as they usually are.
const LISTS_AT_ONCE: usize = 100;

/// Has the database say which gateways each environment needs. Carried out by one server.
#[derive(Debug)]
pub(crate) struct EnvironmentListMaker {
    store: Store,
    next: Instant,
}

impl EnvironmentListMaker {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, next: Instant::now() }
    }
}

impl BackgroundTask for EnvironmentListMaker {
    const NAME: &'static str = "environment-gateways";
    const PERIOD: Duration = PERIOD;
    /// A read of all shares, and some writes.
    const WITHIN: Duration = Duration::from_secs(30);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        let begin = Instant::now();
        if begin < self.next {
            return Ok(Outcome::Done);
        }
        let is_more = self.store.update_environment_gateways(now).await?;
        self.next = begin + RESTS * begin.elapsed();
        Ok(if is_more { Outcome::More } else { Outcome::Done })
    }
}

/// Tells each linked gateway the lists of the environments whose agents are connected to it.
#[derive(Debug)]
pub(crate) struct ListTeller {
    links: LinkTable,
    /// By their environments.
    rows: BTreeMap<EnvironmentId, EnvironmentGateways>,
    /// Of the rows.
    newest: u64,
    signed: BTreeMap<EnvironmentId, (u64, SignedGatewayList)>,
}

impl ListTeller {
    pub(crate) fn new(links: LinkTable) -> Self {
        Self { links, rows: BTreeMap::new(), newest: 0, signed: BTreeMap::new() }
    }

    /// Tells a link what it lacks, as far as it has room.
    fn tell(&mut self) {
        for (send, view) in self.links.linked_over_network() {
            let mut wants =
                view.lock().lists_wanted(|environment| Some(self.rows.get(&environment)?.version));
            while !wants.is_empty() {
                let rest = wants.split_off(wants.len().min(LISTS_AT_ONCE));
                let lists = wants
                    .iter()
                    .filter_map(|(environment, _)| Some((*environment, self.signed(*environment)?)));
                // A link that is busy is told the next time.
                if send.try_send(ToGateway::GatewayLists(lists.collect())).is_err() {
                    break;
                }
                view.lock().lists_told(&wants);
                wants = rest;
            }
        }
    }

    fn signed(&mut self, environment: EnvironmentId) -> Option<SignedGatewayList> {
        let row = self.rows.get(&environment)?;
        if let Some((version, signed)) = self.signed.get(&environment)
            && *version == row.version
        {
            return Some(signed.clone());
        }
        let EnvironmentGateways { gateways, version, .. } = row.clone();
        let list = GatewayList { environment, era: self.links.era, version, gateways };
        match self.links.ca.sign_gateways(&list) {
            Ok(signed) => {
                self.signed.insert(environment, (version, signed.clone()));
                Some(signed)
            }
            Err(error) => {
                error!(%error, environment.id = %environment, "cannot sign a list of gateways");
                None
            }
        }
    }
}

impl BackgroundTask for ListTeller {
    const NAME: &'static str = "gateway-lists";
    const PERIOD: Duration = PERIOD;
    /// One statement, and signatures.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, _: Timestamp) -> anyhow::Result<Outcome> {
        for row in self.links.store.environment_gateways(self.newest).await? {
            self.newest = self.newest.max(row.version);
            self.rows.insert(row.environment, row);
        }
        self.tell();
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::SharedView;
    use uuid::Uuid;
    use wicketgate_link::{GatewayHello, VERSIONS, Versions};
    use wicketgate_model::EspMode;

    fn hello(versions: Versions) -> GatewayHello {
        GatewayHello {
            versions,
            version: "0.1.0".to_owned(),
            boot: Uuid::nil(),
            held: None,
            agent_url: None,
            esp: EspMode::Off,
            public_address: None,
            max_tunnels: None,
            namespaces: None,
        }
    }

    #[test]
    fn a_gateway_lacks_the_lists_of_environments_with_agents_there_and_an_older_one_lacks_none() {
        let view = SharedView::new(Timestamp::now());
        let [a, b, c] = [1, 2, 3].map(|n| EnvironmentId::new(Uuid::from_u128(n)));
        let newest =
            |environment| [(a, 7), (c, 9)].into_iter().find(|row| row.0 == environment).map(|row| row.1);
        view.lock().lists.extend([(a, 0), (b, 0)]);
        assert_eq!(view.lock().lists_wanted(newest), [], "it has said nothing yet");
        view.linked(hello(Versions { oldest: 5, newest: 5 }));
        assert_eq!(view.lock().lists_wanted(newest), []);
        view.linked(hello(VERSIONS));
        assert_eq!(view.lock().lists_wanted(newest), [(a, 7)], "there is no list of the other");
        view.lock().lists_told(&[(a, 7)]);
        assert_eq!(view.lock().lists_wanted(newest), []);
        assert_eq!(view.lock().lists_wanted(|_| Some(8)), [(a, 8), (b, 8)]);
    }
}
