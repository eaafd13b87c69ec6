//! `wicketgate status`: what is wrong, first; then how many of each kind there are. What was disabled on purpose is not wrong.

use std::{
    io::{self, Write},
    pin::pin,
};

use clap::ArgMatches;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use wicketgate_client::ApiClient;

use crate::{
    arguments::output,
    context::Session,
    failed::Failed,
    kind::{AGENT, FRONTDOOR, Kind, SHARE, TUNNEL, why_not_connected},
    output::Form,
    session::text,
    table::cell,
};

/// Resources of each kind, warnings, and unknown peers that are shown.
const MOST_SHOWN: usize = 10;

pub(crate) const UNKNOWN_PEERS: &str = "frontdoor/v2/unknown-peers";
pub(crate) const UNKNOWN_AGENTS: &str = "frontdoor/v2/unknown-agents";
/// The status of what was disabled on purpose, which is not ready.
const DISABLED: &str = "DISABLED";
/// Filters for shares that are not ready, though they should be.
const NOT_READY: &[(&str, &str)] = &[
    ("ready", "false"),
    ("status", "NEW"),
    ("status", "DEPLOYED"),
    ("status", "ERROR"),
    ("status", "DELETING"),
];

const INSTALLATION: &str = "frontdoor/v2/installation";

/// The resources of one kind.
#[derive(Debug)]
struct Standing {
    kind: &'static Kind,
    all: u64,
    /// With those that are disabled.
    not_ready: u64,
    disabled: u64,
    /// The first that are not ready, and not disabled.
    failing: Vec<Value>,
    /// The first that are ready and in doubt.
    doubtful: Vec<Value>,
}

impl Standing {
    /// Of a Frontdoor. `bad` are the filters for those that are not ready.
    async fn of(
        client: &ApiClient,
        frontdoor: &str,
        kind: &'static Kind,
        bad: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        let of = |filters: &[(&str, &str)]| -> Vec<_> {
            filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let path = list_of(frontdoor, kind);
        let disabled = match kind.settles {
            true => count(client, &path, &of(&[("status", DISABLED)])).await?,
            false => 0,
        };
        let all = count(client, &path, &[]).await?;
        let failing = client.list(&path, &of(bad), Some(MOST_SHOWN)).try_collect().await?;
        let not_ready = count(client, &path, &of(bad)).await? + disabled;
        Ok(Self { kind, all, not_ready, disabled, failing, doubtful: Vec::new() })
    }

    /// Each tunnel is looked at. Without IPsec it has no connection and is ready, for which the API has no filter.
    async fn of_tunnels(client: &ApiClient, frontdoor: &str) -> Result<Self, Failed> {
        let path = list_of(frontdoor, &TUNNEL);
        let (mut all, mut not_ready, mut disabled) = (0, 0, 0);
        let (mut failing, mut doubtful) = (Vec::new(), Vec::new());
        let mut tunnels = pin!(client.list(&path, &[], None));
        while let Some(tunnel) = tunnels.try_next().await? {
            all += 1;
            let is_ready = tunnel["ready"] == true;
            not_ready += u64::from(!is_ready);
            if tunnel["status"] == DISABLED {
                disabled += 1;
                continue;
            }
            let shown = if is_ready { &mut doubtful } else { &mut failing };
            if shown.len() < MOST_SHOWN && (!is_ready || warnings(&tunnel).next().is_some()) {
                shown.push(tunnel);
            }
        }
        Ok(Self { kind: &TUNNEL, all, not_ready, disabled, failing, doubtful })
    }

    fn counts(&self) -> String {
        let Self { kind, all, not_ready, disabled, .. } = self;
        let also = if *disabled > 0 { format!(", {disabled} disabled") } else { String::new() };
        format!(
            "{:<10} {all:>6}, of which {} not ready{also}",
            kind.plural,
            not_ready.saturating_sub(*disabled)
        )
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { kind, failing, doubtful, .. } = self;
        for resource in failing {
            let why = why(kind, resource);
            writeln!(out, "✗ {} {}: {}", kind.name, cell(&resource[kind.label]), cell(&why.into()))?;
        }
        for resource in doubtful {
            for warning in warnings(resource) {
                let name = cell(&resource[kind.label]);
                writeln!(out, "! {} {name}: {}", kind.name, cell(&warning["message"]))?;
            }
        }
        Ok(())
    }
}

fn list_of(frontdoor: &str, kind: &Kind) -> String {
    format!("frontdoor/v2/{frontdoor}/{}", kind.path)
}

async fn count(client: &ApiClient, path: &str, query: &[(String, String)]) -> Result<u64, Failed> {
    let one = [query, &[("size".to_owned(), "1".to_owned())]].concat();
    let page = client.get(path, &one).await?;
    page["totalElements"]
        .as_u64()
        .ok_or_else(|| Failed::other("the server's answer has no number of elements"))
}

fn warnings(tunnel: &Value) -> impl Iterator<Item = &Value> {
    tunnel["connection"]["warnings"].as_array().into_iter().flatten()
}

fn why(kind: &Kind, resource: &Value) -> String {
    let detail = text(&resource["statusDetail"], "message");
    match kind.name {
        "tunnel" => {
            let (state, why) = (text(&resource["connection"], "state"), why_not_connected(resource));
            let parts = [detail, state, &why];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        }
        "agent" => format!("not connected since {}", cell(&resource["lastSeen"])),
        _ => detail.to_owned(),
    }
}

/// Nothing arrives from the tunnel's peer. The commonest cause is that the site's address is another one than was said.
fn is_silent(tunnel: &Value) -> bool {
    let error = &tunnel["connection"]["lastError"];
    error.is_null() || error["reason"] == "PeerDoesNotAnswer"
}

/// What the server does not know: only the operator may see it, and a server of an older version does not have it.
async fn unknown(session: &Session, path: &str) -> Result<Vec<Value>, Failed> {
    let all = session.client.list(path, &[], Some(MOST_SHOWN));
    match all.try_collect().await {
        Err(failure) if failure.is_forbidden() || failure.is_not_found() => Ok(Vec::new()),
        all => Ok(all?),
    }
}

/// The last backup, `null` if there is none. Only the operator may see it, and a server of an older version does not know it.
async fn last_backup(session: &Session) -> Result<Option<Value>, Failed> {
    match session.client.get(INSTALLATION, &[]).await {
        Err(failure) if failure.is_forbidden() || failure.is_not_found() => Ok(None),
        facts => Ok(Some(facts?["lastBackup"].clone())),
    }
}

fn backup_line(last: &Value) -> String {
    match last["bytes"].as_u64() {
        None => "none: `wicketgate backup` makes one".to_owned(),
        Some(bytes) => format!("{}, {} KiB", cell(&last["createdAt"]), bytes.div_ceil(1024)),
    }
}

/// What one Frontdoor has.
#[derive(Debug)]
struct Picture {
    frontdoor: Value,
    /// Nothing while its shares are switched off: the API tells nothing of what it has.
    all: Vec<Standing>,
}

impl Picture {
    async fn of(client: &ApiClient, frontdoor: Value) -> Result<Self, Failed> {
        let id = text(&frontdoor, "id");
        let all = match frontdoor["ipsecSharesEnabled"] == false {
            true => Vec::new(),
            false => vec![
                Standing::of_tunnels(client, id).await?,
                Standing::of(client, id, &SHARE, NOT_READY).await?,
                Standing::of(client, id, &AGENT, &[("status", "OFFLINE")]).await?,
            ],
        };
        Ok(Self { frontdoor, all })
    }

    fn is_off(&self) -> bool {
        self.all.is_empty()
    }

    fn is_ready(&self) -> bool {
        !self.is_off() && self.all.iter().all(|one| one.failing.is_empty())
    }

    fn json(&self) -> Value {
        let mut shown = json!({
            "frontdoor": self.frontdoor["id"], "ipsecSharesEnabled": !self.is_off(),
        });
        for Standing { kind, all, not_ready, disabled, .. } in &self.all {
            shown[kind.plural] = json!({"all": all, "notReady": not_ready, "disabled": disabled});
        }
        shown["wrong"] = self.all.iter().flat_map(|one| one.failing.clone()).collect();
        shown["inDoubt"] = self.all.iter().flat_map(|one| one.doubtful.clone()).collect();
        shown
    }

    /// What is wrong.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.is_off() {
            let (name, id) = (cell(&self.frontdoor[FRONTDOOR.label]), text(&self.frontdoor, "id"));
            writeln!(
                out,
                "✗ Frontdoor {name}: its IPsec shares are switched off, so that it serves nothing. \
                 `wicketgate frontdoor update {id} --ipsec-shares-enabled` switches them on"
            )?;
        }
        self.all.iter().try_for_each(|standing| standing.write(out))
    }
}

/// All that a status is about.
#[derive(Debug)]
struct Summary {
    /// Why the server is not ready.
    faults: Vec<String>,
    pictures: Vec<Picture>,
    peers: Vec<Value>,
    agents: Vec<Value>,
    backup: Option<Value>,
}

impl Summary {
    async fn of(session: &Session, wants_all: bool) -> Result<Self, Failed> {
        let client = &session.client;
        let frontdoors: Vec<Value> = match wants_all {
            true => client.list("frontdoor/v2", &[], None).try_collect().await?,
            false => vec![client.get(&format!("frontdoor/v2/{}", chosen(session).await?), &[]).await?],
        };
        let mut pictures = Vec::with_capacity(frontdoors.len());
        for frontdoor in frontdoors {
            pictures.push(Picture::of(client, frontdoor).await?);
        }
        let mut tunnels = pictures.iter().flat_map(|picture| picture.all.first());
        let peers = match tunnels.any(|tunnels| tunnels.failing.iter().any(is_silent)) {
            true => unknown(session, UNKNOWN_PEERS).await?,
            false => Vec::new(),
        };
        let agents = unknown(session, UNKNOWN_AGENTS).await?;
        let backup = last_backup(session).await?;
        // Last: what is asked here may be what it shows.
        let faults = faults(client.readiness().await?.as_ref());
        Ok(Self { faults, pictures, peers, agents, backup })
    }

    fn is_ready(&self) -> bool {
        self.faults.is_empty() && self.agents.is_empty() && self.pictures.iter().all(Picture::is_ready)
    }

    fn json(&self, server: &str, is_of_all: bool) -> Value {
        let mut shown = match &self.pictures[..] {
            [only] if !is_of_all => only.json(),
            all => json!({"frontdoors": all.iter().map(Picture::json).collect::<Vec<_>>()}),
        };
        shown["server"] = server.into();
        shown["serverFaults"] = self.faults.clone().into();
        shown["unknownPeers"] = self.peers.clone().into();
        shown["unknownAgents"] = self.agents.clone().into();
        if let Some(backup) = &self.backup {
            shown["lastBackup"] = backup.clone();
        }
        shown
    }

    fn write(&self, out: &mut impl Write, is_of_all: bool) -> io::Result<()> {
        for fault in &self.faults {
            writeln!(out, "✗ the server is not ready: {fault}")?;
        }
        for picture in &self.pictures {
            if is_of_all && !picture.is_ready() && !picture.is_off() {
                writeln!(out, "Frontdoor {}:", cell(&picture.frontdoor[FRONTDOOR.label]))?;
            }
            picture.write(out)?;
        }
        for agent in &self.agents {
            let (id, address) = (cell(&agent["id"]), cell(&agent["address"]));
            writeln!(
                out,
                "! agent {id} at {address} is refused, because the database does not know it: see `wicketgate agent unknown`"
            )?;
        }
        for peer in &self.peers {
            let (address, port) = (cell(&peer["address"]), cell(&peer["port"]));
            writeln!(out, "! IKE from {address} (port {port}), which is no tunnel's peerPublicIp")?;
        }
        if self.is_ready() {
            writeln!(out, "✓ everything is ready")?;
        }
        for picture in self.pictures.iter().filter(|picture| !picture.is_off()) {
            if is_of_all {
                writeln!(out, "Frontdoor {} has", cell(&picture.frontdoor[FRONTDOOR.label]))?;
            }
            for standing in &picture.all {
                writeln!(out, "{}", standing.counts())?;
            }
        }
        if let Some(backup) = &self.backup {
            writeln!(out, "last backup: {}", backup_line(backup))?;
        }
        Ok(())
    }
}

/// The id of the Frontdoor that is chosen, or of the only one.
async fn chosen(session: &Session) -> Result<String, Failed> {
    session.frontdoor_id().await.map_err(|failed| match failed {
        several @ Failed::Usage(_) => several.with("`wicketgate status --all` looks at all of them"),
        failed => failed,
    })
}

/// Why the server is not ready, as it says.
fn faults(readiness: Option<&Value>) -> Vec<String> {
    let Some(said) = readiness.filter(|said| said["ready"] == false) else { return Vec::new() };
    let reasons: Vec<_> = said["reasons"].as_array().into_iter().flatten().map(cell).collect();
    if reasons.is_empty() { vec!["see its log".to_owned()] } else { reasons }
}

pub(crate) async fn status(session: &Session, matches: &ArgMatches) -> Result<(), Failed> {
    let output = output(matches);
    let wants_all = matches.get_flag("all");
    let summary = Summary::of(session, wants_all).await?;
    let outcome = if summary.is_ready() { Ok(()) } else { Err(Failed::NotReady) };
    if output.form != (Form::Table { is_wide: false }) || output.jq.is_some() {
        output.one(&TUNNEL, &summary.json(session.client.base().as_str(), wants_all))?;
        return outcome;
    }
    let has_others = !wants_all && has_others(session).await?;
    let mut out = io::stdout().lock();
    summary.write(&mut out, wants_all)?;
    if let Some(chosen) = session.frontdoor.as_ref().filter(|_| has_others) {
        writeln!(
            out,
            "All of this is of the Frontdoor {chosen}; --frontdoor names another, and --all looks at all."
        )?;
    }
    outcome
}

/// Whether the token reaches several Frontdoors.
async fn has_others(session: &Session) -> Result<bool, Failed> {
    let some: Vec<_> = session.client.list("frontdoor/v2", &[], Some(2)).try_collect().await?;
    Ok(some.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_without_an_answer_is_silent() {
        let with = |error: Value| json!({"connection": {"state": "DOWN", "lastError": error}});
        assert!(is_silent(&with(Value::Null)) && is_silent(&with(json!({"reason": "PeerDoesNotAnswer"}))));
        assert!(!is_silent(&with(json!({"reason": "PreSharedKeysDiffer"}))));
    }

    #[test]
    fn a_server_that_is_not_ready_and_a_frontdoor_that_is_switched_off_are_not_ready() {
        let said = json!({"ready": false, "reasons": ["the disk is full: free space on it"]});
        assert_eq!(faults(Some(&said)), ["the disk is full: free space on it"]);
        assert_eq!(faults(Some(&json!({"ready": true}))), [""; 0]);
        assert_eq!(faults(None), [""; 0]);
        let off =
            Picture { frontdoor: json!({"id": "f-1", "defaultNamespaceName": "acme"}), all: Vec::new() };
        let with = |faults: Vec<String>, pictures| Summary {
            faults,
            pictures,
            peers: Vec::new(),
            agents: Vec::new(),
            backup: None,
        };
        assert!(with(Vec::new(), Vec::new()).is_ready());
        for (summary, line) in [
            (with(vec!["no disk".to_owned()], Vec::new()), "✗ the server is not ready: no disk\n"),
            (
                with(Vec::new(), vec![off]),
                "✗ Frontdoor acme: its IPsec shares are switched off, so that it serves nothing. `wicketgate frontdoor update \
                 f-1 --ipsec-shares-enabled` switches them on\n",
            ),
        ] {
            assert!(!summary.is_ready());
            let mut out = Vec::new();
            summary.write(&mut out, false).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }

    #[test]
    fn the_last_backup_is_a_line() {
        assert_eq!(backup_line(&Value::Null), "none: `wicketgate backup` makes one");
        let last = json!({"createdAt": "2026-11-30T12:00:00.123456Z", "bytes": 2049, "version": "1"});
        assert_eq!(backup_line(&last), "2026-11-30T12:00:00Z, 3 KiB");
    }

    #[test]
    fn a_tunnel_says_why_it_is_not_ready_or_in_doubt() {
        let standing = Standing {
            kind: &TUNNEL,
            all: 5,
            not_ready: 4,
            disabled: 1,
            failing: vec![
                json!({"name": "a", "peerPublicIp": "203.0.113.2", "ready": false, "connection": {"state": "DOWN"}}),
                json!({"name": "b", "connection": {"state": "DOWN", "lastError": {"message": "the keys differ"}}}),
                json!({"name": "d", "ready": false, "statusDetail": {"message": "no room"}, "connection": {"state": "DOWN"}}),
            ],
            doubtful: vec![
                json!({"name": "c", "connection": {"warnings": [{"message": "no packet has come"}]}}),
            ],
        };
        assert_eq!(standing.counts(), "tunnels         5, of which 3 not ready, 1 disabled");
        let mut out = Vec::new();
        standing.write(&mut out).unwrap();
        let expected = "✗ tunnel a: DOWN nothing arrives from 203.0.113.2: the device has not connected yet, has ended its \
                        connection, or has another address\n\
                        ✗ tunnel b: DOWN the keys differ\n\
                        ✗ tunnel d: no room DOWN\n\
                        ! tunnel c: no packet has come\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
