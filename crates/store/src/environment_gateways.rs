//! Which gateways the agents of each environment dial: those that serve a share of it, so that each is reached.
//!
//! Invariant: the version of a row grows with each change of it, and servers pass on what rows have: so all of them tell agents the same.

use crate::{Result, Store, WriteContext, row::rows, write::Write};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;
use wicketgate_model::{DialledGateway, EnvironmentId, GatewayId, GatewayList, LocationId};

/// Gateways of an environment with fewer ones that serve its shares: an agent is reached although one is lost, and before there are
/// shares.
const LEAST: usize = 2;
/// Rows that are written in one transaction: callers' writes wait for it.
const AT_ONCE: usize = 200;
/// Bytes of a gateway's URL. One that tells a longer one is not dialled.
const LONGEST_URL: usize = 300;

/// A place of a tunnel with a share that is not deleted.
const SERVING: &str = "SELECT DISTINCT s.environment, p.gateway FROM ipsec_share s JOIN endpoint_place p ON p.tunnel = s.tunnel \
    WHERE s.status <> 'DELETED' AND p.withdrawn_at IS NULL";
/// Where the environments' agents are, or were, linked.
const NEAR: &str = "SELECT DISTINCT a.environment, g.location FROM agent_link k JOIN agent a ON a.id = k.agent \
    JOIN gateway g ON g.id = k.gateway WHERE a.barred_at IS NULL AND g.location IS NOT NULL";
const DIALLED: &str = "SELECT id, location, agent_url FROM gateway \
    WHERE deleted_at IS NULL AND location IS NOT NULL AND agent_url IS NOT NULL ORDER BY created_at, id";

rows! {
    /// The gateways of an environment.
    struct KnownRow {
        environment: EnvironmentId,
        gateways: String,
        version: u64,
    }
}

/// What the agents of an environment dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentGateways {
    pub environment: EnvironmentId,
    pub gateways: Vec<DialledGateway>,
    /// The revision at which it last changed.
    pub version: u64,
}

/// A gateway that agents can dial.
struct Candidate {
    location: LocationId,
    gateway: DialledGateway,
}

impl Store {
    /// Those that have changed after this version, in the order of their versions.
    pub async fn environment_gateways(&self, since: u64) -> Result<Vec<EnvironmentGateways>> {
        let select = "SELECT environment, gateways, version FROM environment_gateways WHERE version > $1 ORDER BY version";
        let rows: Vec<KnownRow> = self.all(select, &[&since]).await?;
        Ok(rows.into_iter().map(|row| row.read()).collect())
    }

    /// Brings the rows up to date with shares, places, links and gateways. Returns whether there is more to do. While there is one gateway,
    /// nothing is written.
    pub async fn update_environment_gateways(&self, at: Timestamp) -> Result<bool> {
        let known: BTreeMap<_, _> = self
            .environment_gateways(0)
            .await?
            .into_iter()
            .map(|row| (row.environment, row.gateways))
            .collect();
        let dialled: Vec<(GatewayId, LocationId, String)> = self.all(DIALLED, &[]).await?;
        if known.is_empty() && dialled.len() < 2 {
            return Ok(false);
        }
        let serving: Vec<(EnvironmentId, GatewayId)> = self.all(SERVING, &[]).await?;
        let near: Vec<(EnvironmentId, LocationId)> = self.all(NEAR, &[]).await?;
        let candidates: Vec<_> = dialled
            .into_iter()
            .filter(|(_, _, url)| url.len() <= LONGEST_URL && url.starts_with("https://"))
            .map(|(id, location, url)| Candidate { location, gateway: DialledGateway { id, url } })
            .collect();
        let mut wanted = wanted(&grouped(serving), &grouped(near), &candidates);
        for environment in known.keys() {
            wanted.entry(*environment).or_default();
        }
        wanted.retain(|environment, gateways| match known.get(environment) {
            Some(known) => known != gateways,
            None => !gateways.is_empty(),
        });
        let is_more = wanted.len() > AT_ONCE;
        let changed: Vec<_> = wanted.into_iter().take(AT_ONCE).collect();
        if !changed.is_empty() {
            let context = WriteContext::new("server", at, Uuid::nil);
            self.write(&context, move |write| write.set_environment_gateways(changed).boxed()).await?;
        }
        Ok(is_more)
    }
}

impl Write {
    async fn set_environment_gateways(
        &mut self,
        all: Vec<(EnvironmentId, Vec<DialledGateway>)>,
    ) -> Result<()> {
        let upsert = "INSERT INTO environment_gateways (environment, gateways, version) VALUES ($1, $2, $3) \
                      ON CONFLICT (environment) DO UPDATE SET gateways = excluded.gateways, version = excluded.version";
        for (environment, gateways) in all {
            // A list of texts is always written.
            let text = serde_json::to_string(&gateways).unwrap_or_default();
            self.tx.execute(upsert, &[&environment, &text, &self.revision]).await?;
        }
        Ok(())
    }
}

impl KnownRow {
    /// One that cannot be read, as of another version of the program, is none, and is written again.
    fn read(self) -> EnvironmentGateways {
        let Self { environment, gateways, version } = self;
        EnvironmentGateways {
            environment,
            gateways: serde_json::from_str(&gateways).unwrap_or_default(),
            version,
        }
    }
}

fn grouped<K: Ord, V: Ord>(pairs: Vec<(K, V)>) -> BTreeMap<K, BTreeSet<V>> {
    let mut groups: BTreeMap<K, BTreeSet<V>> = BTreeMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().insert(value);
    }
    groups
}

/// The gateways of each environment: those that serve its shares, and if these are few, others of the locations at which its agents are
/// linked, the oldest first.
fn wanted(
    serving: &BTreeMap<EnvironmentId, BTreeSet<GatewayId>>,
    near: &BTreeMap<EnvironmentId, BTreeSet<LocationId>>,
    candidates: &[Candidate],
) -> BTreeMap<EnvironmentId, Vec<DialledGateway>> {
    let environments: BTreeSet<_> = serving.keys().chain(near.keys()).copied().collect();
    let (no_gateways, no_locations) = (BTreeSet::new(), BTreeSet::new());
    let gateways = |environment: &EnvironmentId| {
        let serving = serving.get(environment).unwrap_or(&no_gateways);
        let near = near.get(environment).unwrap_or(&no_locations);
        let (serve, rest): (Vec<_>, Vec<_>) =
            candidates.iter().partition(|candidate| serving.contains(&candidate.gateway.id));
        let fill = LEAST.saturating_sub(serve.len());
        let others = rest.into_iter().filter(|candidate| near.contains(&candidate.location)).take(fill);
        let all = serve.into_iter().chain(others).take(GatewayList::MOST);
        all.map(|candidate| candidate.gateway.clone()).collect::<Vec<_>>()
    };
    environments.into_iter().map(|environment| (environment, gateways(&environment))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(n: u128) -> EnvironmentId {
        EnvironmentId::new(Uuid::from_u128(n))
    }

    fn gateway(n: u128) -> GatewayId {
        GatewayId::new(Uuid::from_u128(n))
    }

    fn candidate(n: u128, location: &str) -> Candidate {
        let gateway = DialledGateway { id: gateway(n), url: format!("https://gw-{n}:8443") };
        Candidate { location: location.parse().unwrap(), gateway }
    }

    #[test]
    fn an_environment_has_the_gateways_of_its_shares_and_two_where_its_agents_are() {
        let candidates =
            [candidate(3, "b"), candidate(1, "a"), candidate(2, "a"), candidate(4, "a"), candidate(5, "c")];
        let serving = grouped(vec![
            (environment(1), gateway(3)),
            (environment(2), gateway(1)),
            (environment(2), gateway(3)),
            (environment(2), gateway(5)),
            // It was removed, or has told no address.
            (environment(4), gateway(9)),
        ]);
        let a: LocationId = "a".parse().unwrap();
        let near = grouped((1..=3).map(|n| (environment(n), a.clone())).collect());
        let of = wanted(&serving, &near, &candidates);
        let ids = |n| of[&environment(n)].iter().map(|gateway| gateway.id).collect::<Vec<_>>();
        assert_eq!(ids(1), [gateway(3), gateway(1)]);
        assert_eq!(ids(2), [gateway(3), gateway(1), gateway(5)]);
        assert_eq!(ids(3), [gateway(1), gateway(2)], "it has no shares");
        assert_eq!(ids(4), []);
    }
}
