//! Asks a gateway through the server that it is linked to.
//!
//! Invariant: a question makes one hop at most, for a server answers for gateways that are linked to it alone. One that was sent is not
//! sent again: it may have been carried out.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::future;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tracing::warn;
use wicketgate_link::{AgentShares, IkeLogLine, ShareCheck};
use wicketgate_model::{
    AgentId, GatewayId, LocationId, ResetMode, ResetScope, ShareId, TunnelId, UnknownAgent, UnknownPeer,
};
use wicketgate_store::Store;
use wicketgate_transport::{control::Control, tls::PeerTls};

use super::rpc::{CHECK_WITHIN, CLOSED_WITHIN, LOG_WITHIN, PLACE_WITHIN, RESET_WITHIN, TooManyChecks};

/// For the name, the connection and the handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Beyond the time that the other server gives the gateway.
const MARGIN: Duration = Duration::from_secs(2);
/// Before the second attempt: a gateway that loses its server has the next one within this time, mostly.
const PAUSE: Duration = Duration::from_millis(400);
/// For what servers answer from memory.
const AT_ONCE: Duration = Duration::from_secs(3);
/// A gateway may find another server while it is asked for.
const ATTEMPTS: usize = 2;

/// What one server asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerQuestion {
    Of {
        gateway: GatewayId,
        ask: GatewayAsk,
    },
    /// The shares of these agents, as the gateways report them that are linked there.
    Agents(Vec<AgentId>),
    Strangers,
}

impl GatewayAsk {
    /// For the answer of the other server.
    fn within(&self) -> Duration {
        MARGIN
            + match self {
                Self::Check { .. } => PLACE_WITHIN * 2 + CHECK_WITHIN,
                Self::Close { .. } => CLOSED_WITHIN,
                Self::Reset { .. } => RESET_WITHIN,
                Self::IkeLog { .. } => LOG_WITHIN,
            }
    }
}

/// What a gateway is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GatewayAsk {
    /// For an organization, whose checks wait for each other.
    Check {
        share: ShareId,
        organization: String,
    },
    Close {
        share: ShareId,
        source: Option<Ipv4Addr>,
    },
    Reset {
        tunnel: TunnelId,
        scope: ResetScope,
        mode: ResetMode,
    },
    IkeLog {
        tunnel: TunnelId,
        after: u64,
    },
}

/// The answer to a [`PeerQuestion`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerAnswer {
    /// The gateway is not linked to the server, or stops.
    NotHere,
    /// The gateway does not answer.
    Silent,
    Checked(Box<ShareCheck>),
    TooManyChecks(TooManyChecks),
    Closed(u64),
    Reset(Result<String, String>),
    IkeLog(Vec<IkeLogLine>),
    Agents(Vec<AgentShares>),
    Strangers(Vec<Strangers>),
}

/// Whom a gateway does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Strangers {
    pub(crate) location: LocationId,
    pub(crate) peers: Vec<UnknownPeer>,
    pub(crate) agents: Vec<UnknownAgent>,
}

/// The other servers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) store: Store,
    pub(crate) tls: PeerTls,
}

/// Why a server has not answered.
#[derive(Debug)]
enum Unanswered {
    /// It was not asked.
    Unreached(String),
    Lost(String),
}

impl Peers {
    /// Asks the server that has the gateway's link; `None`: nobody answers.
    pub(super) async fn ask(&self, gateway: GatewayId, ask: GatewayAsk) -> Option<PeerAnswer> {
        let within = ask.within();
        let question = PeerQuestion::Of { gateway, ask };
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let address = self.store.linked_elsewhere(gateway).await.ok()??;
            match self.ask_at(&address, &question, within).await {
                Ok(PeerAnswer::NotHere) => {}
                Ok(answer) => return Some(answer),
                Err(Unanswered::Unreached(_)) => {}
                Err(Unanswered::Lost(_)) => return None,
            }
        }
        None
    }

    /// Asks all servers that have links. Those that do not answer at once are left out.
    pub(super) async fn ask_all(&self, question: PeerQuestion) -> Vec<PeerAnswer> {
        let servers = self.store.servers_with_links().await.unwrap_or_default();
        let asked = servers.iter().map(|address| self.ask_at(address, &question, AT_ONCE));
        future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask_at(
        &self,
        address: &str,
        question: &PeerQuestion,
        within: Duration,
    ) -> Result<PeerAnswer, Unanswered> {
        let answered = self.try_ask_at(address, question, within).await;
        if let Err(Unanswered::Unreached(why) | Unanswered::Lost(why)) = &answered {
            warn!(
                server = address,
                why, "another server does not answer, so that what only its gateways know is missing"
            );
        }
        answered
    }

    async fn try_ask_at(
        &self,
        address: &str,
        question: &PeerQuestion,
        within: Duration,
    ) -> Result<PeerAnswer, Unanswered> {
        let connected = timeout(CONNECT_WITHIN, self.connect(address)).await;
        let connected = connected.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        let mut control = connected.map_err(Unanswered::Unreached)?;
        let asked = async {
            control.send(question).await?;
            control.receive().await
        };
        match timeout(within, asked).await {
            Ok(answered) => answered.map_err(|error| Unanswered::Lost(error.to_string())),
            Err(_) => Err(Unanswered::Lost("it does not answer".to_owned())),
        }
    }

    async fn connect(&self, address: &str) -> Result<Control, String> {
        let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let _ = tcp.set_nodelay(true);
        self.tls.connect(tcp).await.map_err(|error| error.to_string())
    }
}
