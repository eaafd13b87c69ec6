//! The servers that use the database: their rows, and the end of those that are dead.
//!
//! Invariant: the link of a server that counts as dead has ended for that server, too, should it live: its epoch has passed.

use crate::{Result, ServerRow, Store};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::time::Instant;
use wicketgate_model::{GatewayId, ServerId};

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    pub link_address: Option<String>,
    pub version: String,
    pub started_at: Timestamp,
}

impl Store {
    /// By which other servers know this one: new at each start.
    pub fn server_id(&self) -> ServerId {
        self.servers.own
    }

    /// Whether no other server that lives has started before this one, as far as this one has seen. Two servers may both find so, for the
    /// time of a beat.
    pub fn is_eldest(&self) -> bool {
        self.servers.is_eldest()
    }

    /// How many servers use the database, this one included, as far as it has seen.
    pub fn servers_alive(&self) -> usize {
        self.servers.count()
    }

    /// Tells the other servers that this one lives, learns which of them do, and ends the links of those that do not.
    pub async fn beat(&self, facts: &ServerFacts, now: Timestamp) -> Result<()> {
        let (own, facts) = (self.servers.own, facts.clone());
        let beats = self.settle(move |write| {
            async move {
                let upsert = "INSERT INTO server (id, link_address, version, beat, started_at) VALUES ($1, $2, $3, 1, $4) \
                              ON CONFLICT (id) DO UPDATE SET beat = server.beat + 1";
                let ServerFacts { link_address, version, started_at } = &facts;
                write.tx.execute(upsert, &[&own, link_address, version, started_at]).await?;
                write.tx.all("SELECT * FROM server ORDER BY id", &[]).await
            }
            .boxed()
        });
        let rows: Vec<ServerRow> = beats.await?;
        for dead in self.servers.seen(rows, Instant::now()) {
            self.bury(dead).await?;
        }
        self.end_links_of_none(now).await
    }

    /// Removes a server that counts as dead, unless it has beaten since.
    async fn bury(&self, dead: ServerRow) -> Result<()> {
        self.settle(move |write| {
            async move {
                let remove = "DELETE FROM server WHERE id = $1 AND beat = $2";
                write.tx.execute(remove, &[&dead.id, &dead.beat]).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    /// Ends the links whose server is not there any more.
    async fn end_links_of_none(&self, now: Timestamp) -> Result<()> {
        let select = "SELECT k.gateway FROM gateway_link k JOIN gateway g ON g.id = k.gateway \
                      WHERE k.linked_at IS NOT NULL AND k.lost_at IS NULL AND g.in_process = 0 \
                      AND NOT EXISTS (SELECT 1 FROM server s WHERE s.id = k.server)";
        let lost: Vec<(GatewayId,)> = self.all(select, &[]).await?;
        for (gateway,) in lost {
            let ended = self.settle(move |write| {
                async move {
                    let end = "UPDATE gateway_link SET epoch = epoch + 1, lost_at = $1 WHERE gateway = $2 AND lost_at IS NULL \
                               AND NOT EXISTS (SELECT 1 FROM server s WHERE s.id = gateway_link.server)";
                    match write.tx.execute(end, &[&now, &gateway]).await? {
                        0 => Ok(()),
                        _ => write.disconnect_agents(gateway, now, Some(now)).await,
                    }
                }
                .boxed()
            });
            ended.await?;
        }
        Ok(())
    }

    /// The servers that live, this one included if it beats, the oldest first.
    pub async fn live_servers(&self) -> Result<Vec<ServerRow>> {
        let rows: Vec<ServerRow> = self.all("SELECT * FROM server ORDER BY id", &[]).await?;
        Ok(rows.into_iter().filter(|row| self.servers.lives(row.id)).collect())
    }

    /// Where the server with the gateway's link is asked, as HOST:PORT; `None`: the gateway has no link to another server.
    pub async fn linked_elsewhere(&self, gateway: GatewayId) -> Result<Option<String>> {
        let select = "SELECT s.link_address FROM gateway_link k JOIN server s ON s.id = k.server \
                      WHERE k.gateway = $1 AND k.lost_at IS NULL AND s.id <> $2 AND s.link_address IS NOT NULL";
        let found: Option<(String,)> = self.find(select, &[&gateway, &self.servers.own]).await?;
        Ok(found.map(|(address,)| address))
    }

    /// Where the other servers that have links are asked, as HOST:PORT.
    pub async fn servers_with_links(&self) -> Result<Vec<String>> {
        let select = "SELECT s.link_address FROM server s WHERE s.id <> $1 AND s.link_address IS NOT NULL \
                      AND EXISTS (SELECT 1 FROM gateway_link k WHERE k.server = s.id AND k.lost_at IS NULL) ORDER BY s.id";
        let found: Vec<(String,)> = self.all(select, &[&self.servers.own]).await?;
        Ok(found.into_iter().map(|(address,)| address).collect())
    }

    /// Says that this server does not live any more. Its links have ended.
    pub async fn leave(&self) -> Result<()> {
        let own = self.servers.own;
        let leave = self.settle(move |write| {
            async move { write.tx.execute("DELETE FROM server WHERE id = $1", &[&own]).await.map(drop) }
                .boxed()
        });
        leave.await
    }
}
