//! Rows that several gateways serve: what each of them reports, and the status that follows from all of it.
//!
//! Invariant: a row is locked before the states of its endpoints are read, and its own gateway's state and its status are written in the
//! same transaction. Otherwise two servers, each with one of the gateways, would read each other's state of before, and neither
//! would find that the row is ready.

use crate::{
    GatewayEpoch, Resource, Result, StatusUpdate, Store,
    bulk::{list, parts, places},
    field::{Argument, shown, text_fields},
    reconcile::{Before, SHARES, TUNNELS, Table, write_statuses},
    row::rows,
    statement::bind,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, HashMap};
use wicketgate_model::{
    Deadlines, EndpointView, EnvironmentId, FrontdoorId, GatewayId, Generation, Observation, Problem, Reason,
    Standing, Status, TunnelId, combined, next, text_enum,
};

/// What a gateway reports of a row that it serves beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowReport {
    pub resource: Resource,
    /// Of the row, as the reporter knows it.
    pub generation: Generation,
    pub seen: Observation,
}

text_enum!(
    /// The kinds of [`Observation`].
    SeenAs {
        Seen = "SEEN",
        Looking = "LOOKING",
        Silent = "SILENT",
        Draining = "DRAINING",
        Unreachable = "UNREACHABLE",
        Relinked = "RELINKED",
        Gone = "GONE",
    }
);
text_fields!(SeenAs);

rows! {
    /// A row of which a gateway has reported.
    struct ReportedRow {
        id: String,
        tunnel: TunnelId,
        frontdoor: FrontdoorId,
        environment: Option<EnvironmentId>,
        generation: Generation,
        standing: Standing,
    }

    /// A place of a row's tunnel, with the state of the row at it. One that has reported nothing has no state.
    struct KnownEndpoint {
        resource: String,
        gateway: GatewayId,
        of_generation: Option<Generation>,
        seen: Option<SeenAs>,
        ready: Option<Generation>,
        problem: Option<Reason>,
        words: Option<String>,
        since: Option<Timestamp>,
    }
}

impl KnownEndpoint {
    /// What is known of the row at `generation`.
    fn view(&self, generation: Generation) -> EndpointView {
        let Self { gateway, ready, .. } = *self;
        let is_of_it = self.of_generation == Some(generation);
        let problem = || Some(Problem::new(self.problem?, self.words.clone().unwrap_or_default()));
        let since = self.since.unwrap_or(Timestamp::UNIX_EPOCH);
        let seen = match self.seen {
            // Why an earlier generation was not ready says nothing.
            Some(SeenAs::Seen) => Observation::Seen { ready, problem: problem().filter(|_| is_of_it) },
            Some(SeenAs::Looking) => Observation::Looking { since },
            Some(SeenAs::Silent) => Observation::Silent { since, drains: false },
            Some(SeenAs::Draining) => Observation::Silent { since, drains: true },
            Some(SeenAs::Unreachable) => Observation::Unreachable { since, is_linked: false },
            Some(SeenAs::Relinked) => Observation::Unreachable { since, is_linked: true },
            Some(SeenAs::Gone) if is_of_it => Observation::Gone,
            Some(SeenAs::Gone) | None => Observation::Seen { ready: None, problem: None },
        };
        EndpointView { gateway, seen }
    }
}

/// A state to be written.
struct NewState<'a> {
    row: &'a ReportedRow,
    report: &'a RowReport,
}

impl Store {
    /// Takes in what a gateway reports of rows that other gateways serve, too, and decides their statuses from what all have
    /// reported. Returns the status of each row that still has the report's generation.
    pub async fn observe(
        &self,
        epoch: &GatewayEpoch,
        reports: &[RowReport],
        deadlines: Deadlines,
        now: Timestamp,
    ) -> Result<Vec<StatusUpdate>> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        let (gateway, reports) = (epoch.gateway(), reports.to_vec());
        self.settle_under(epoch, move |write| {
            async move { write.observe(gateway, reports, deadlines, now).await }.boxed()
        })
        .await
    }
}

impl Write {
    /// See [`Store::observe`].
    pub(crate) async fn observe(
        &mut self,
        gateway: GatewayId,
        mut reports: Vec<RowReport>,
        deadlines: Deadlines,
        now: Timestamp,
    ) -> Result<Vec<StatusUpdate>> {
        reports.sort_by_key(|report| report.resource);
        let (tunnels, shares): (Vec<_>, Vec<_>) =
            reports.iter().partition(|report| matches!(report.resource, Resource::Tunnel(_)));
        let mut decided = Vec::new();
        for (table, reports) in [(&TUNNELS, tunnels), (&SHARES, shares)] {
            for part in parts(&reports) {
                decided.extend(self.observe_part(table, gateway, part, (deadlines, now)).await?);
            }
        }
        Ok(decided)
    }

    async fn observe_part(
        &mut self,
        table: &Table,
        gateway: GatewayId,
        part: &[&RowReport],
        (deadlines, now): (Deadlines, Timestamp),
    ) -> Result<Vec<StatusUpdate>> {
        let ids: Vec<_> = part.iter().map(|report| report.resource.to_string()).collect();
        let ids: Vec<_> = ids.iter().map(|id| id as &dyn Argument).collect();
        let rows: Vec<ReportedRow> =
            self.tx.all(self.locking(&select(table, ids.len()), table.name), &ids).await?;
        let known: Vec<KnownEndpoint> = self.tx.all(endpoints(table, ids.len()), &ids).await?;
        let mut of_rows: BTreeMap<String, Vec<KnownEndpoint>> = BTreeMap::new();
        for endpoint in known {
            of_rows.entry(endpoint.resource.clone()).or_default().push(endpoint);
        }
        let reports: HashMap<_, _> =
            part.iter().map(|report| (report.resource.to_string(), *report)).collect();
        let (mut states, mut updates, mut decided) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let Some(report) = reports.get(&row.id).filter(|report| report.generation == row.generation)
            else {
                continue;
            };
            let endpoints = of_rows.get(&row.id).map(Vec::as_slice).unwrap_or_default();
            let mut standing = row.standing.clone();
            // A gateway whose place was withdrawn says nothing of the row any more.
            if endpoints.iter().any(|endpoint| endpoint.gateway == gateway) {
                let views: Vec<_> = endpoints.iter().map(|e| merged(e, gateway, report)).collect();
                standing =
                    next(&row.standing, row.generation, &combined(row.generation, &views).0, deadlines, now);
                if endpoints.len() > 1 && row.standing.status != Status::Deleted {
                    states.push(NewState { row, report });
                }
            }
            let update = StatusUpdate { resource: report.resource, generation: row.generation, standing };
            if update.standing != row.standing {
                updates.push((update.clone(), row.before()));
            }
            decided.push(update);
        }
        self.write_states(gateway, &states).await?;
        let held: Vec<_> = updates.iter().map(|(update, before)| (update, before.clone())).collect();
        write_statuses(&mut self.tx, table, &held, &mut self.deferred).await?;
        for (update, _) in updates.iter().filter(|(update, _)| update.standing.status == Status::Deleted) {
            self.forget_states(&update.resource.to_string()).await?;
        }
        Ok(decided)
    }

    /// Forgets what gateways have reported of a row.
    pub(crate) async fn forget_states(&mut self, resource: &str) -> Result<()> {
        self.tx.execute("DELETE FROM endpoint_state WHERE resource = $1", &[&resource]).await.map(drop)
    }

    async fn write_states(&mut self, gateway: GatewayId, states: &[NewState<'_>]) -> Result<()> {
        for part in parts(states) {
            let upsert = format!(
                "INSERT INTO endpoint_state (resource, gateway, tunnel, of_generation, seen, ready, problem, words, since) \
                 VALUES {} ON CONFLICT (resource, gateway) DO UPDATE SET tunnel = excluded.tunnel, \
                 of_generation = excluded.of_generation, seen = excluded.seen, ready = excluded.ready, \
                 problem = excluded.problem, words = excluded.words, since = excluded.since",
                places(part.len(), 9)
            );
            let mut query = sqlx::query(AssertSqlSafe(upsert));
            for NewState { row, report } in part {
                let (seen, since, (ready, problem)) = columns(&report.seen);
                let words = problem.map(|problem| shown(&problem.message));
                let problem = problem.map(|problem| problem.reason);
                query = bind(query, &[&row.id, &gateway, &row.tunnel, &report.generation])?;
                query = bind(query, &[&seen, &ready, &problem, &words, &since])?;
            }
            self.tx.run(query).await?;
        }
        Ok(())
    }
}

impl ReportedRow {
    fn before(&self) -> Before {
        let Self { id, frontdoor, environment, generation, standing, .. } = self;
        // A waiting row has no reason of its own.
        let reason = standing.detail.as_ref().map(|detail| detail.problem.reason);
        Before {
            id: id.clone(),
            frontdoor: *frontdoor,
            environment: *environment,
            generation: *generation,
            status: standing.status,
            reason,
        }
    }
}

/// What is known of an endpoint, with what its gateway has just reported.
fn merged(known: &KnownEndpoint, gateway: GatewayId, report: &RowReport) -> EndpointView {
    match known.gateway == gateway {
        true => EndpointView { gateway, seen: report.seen.clone() },
        false => known.view(report.generation),
    }
}

type Seen<'a> = (SeenAs, Option<Timestamp>, (Option<Generation>, Option<&'a Problem>));

fn columns(seen: &Observation) -> Seen<'_> {
    let (kind, since) = match seen {
        Observation::Seen { ready, problem } => return (SeenAs::Seen, None, (*ready, problem.as_ref())),
        Observation::Silent { since, drains: false } => (SeenAs::Silent, Some(*since)),
        Observation::Silent { since, drains: true } => (SeenAs::Draining, Some(*since)),
        Observation::Unreachable { since, is_linked: false } => (SeenAs::Unreachable, Some(*since)),
        Observation::Unreachable { since, is_linked: true } => (SeenAs::Relinked, Some(*since)),
        Observation::Looking { since } => (SeenAs::Looking, Some(*since)),
        Observation::Gone => (SeenAs::Gone, None),
    };
    (kind, since, (None, None))
}

/// The rows of these ids, in their order.
fn select(table: &Table, ids: usize) -> String {
    let Table { name, tunnel, environment, .. } = table;
    format!(
        "SELECT id, {tunnel} AS tunnel, frontdoor, {environment} AS environment, generation, status, status_since, \
         observed_generation, reason, message, detail_since FROM {name} WHERE id IN ({}) ORDER BY id",
        list(ids)
    )
}

/// Their endpoints, in the order of the places.
fn endpoints(table: &Table, ids: usize) -> AssertSqlSafe<String> {
    let Table { name, tunnel, .. } = table;
    // Constants of this program.
    AssertSqlSafe(format!(
        "SELECT r.id AS resource, p.gateway, s.of_generation, s.seen, s.ready, s.problem, s.words, s.since FROM {name} r \
         JOIN endpoint_place p ON p.tunnel = r.{tunnel} AND p.withdrawn_at IS NULL \
         LEFT JOIN endpoint_state s ON s.resource = r.id AND s.gateway = p.gateway \
         WHERE r.id IN ({}) ORDER BY r.id, p.ordinal",
        list(ids)
    ))
}
