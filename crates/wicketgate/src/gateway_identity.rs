//! Who a gateway in a process of its own is: its key, its certificate and its place, on its disk.
//!
//! Invariant: the key is on the disk before it is used. If the answer to a join is lost, a repetition with the same key gets the same
//! identity.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tracing::{info, warn};
use wicketgate_gateway::ToKeep;
use wicketgate_model::{GatewayId, JoinGrant, JoinRequest, LocationId};
use wicketgate_system::{backoff::Backoff, if_exists, private_file, program::LastingRefusal};
use wicketgate_transport::{
    code::JoinToken,
    control::JoinAnswer,
    key::PrivateKey,
    tls::{GatewayIdentity, LinkTls, connect_join},
    trust::{CaCertificate, Fingerprint},
};

/// The first file of a state directory.
pub(crate) const KEY: &str = "gateway.key";
const JOINED: &str = "gateway.json";

const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What is kept beside the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) grant: JoinGrant,
    pub(crate) issued_at: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OwnIdentity {
    pub(crate) id: GatewayId,
    pub(crate) location: LocationId,
    /// Those that were told when it joined.
    pub(crate) servers: Vec<String>,
    pub(crate) identity: GatewayIdentity,
    pub(crate) tls: LinkTls,
    pub(crate) issued_at: Timestamp,
    file: PathBuf,
    kept: Kept,
}

impl OwnIdentity {
    /// As it was kept; `None`: it has not joined.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let file = dir.join(JOINED);
        let Some(text) = if_exists(fs::read(&file))? else { return Ok(None) };
        let kept = serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged: restore it, or have the gateway join again", file.display())
        })?;
        Self::of(dir, kept).map(Some)
    }

    /// Joins with a token at one of the servers, until one answers.
    pub(crate) async fn join(dir: &Path, token: &JoinToken, servers: &[String]) -> anyhow::Result<Self> {
        let key = PrivateKey::load_or_create(&dir.join(KEY))?;
        let request = JoinRequest {
            token: token.id(),
            secret: token.secret().to_vec(),
            public_key: key.public_point(),
        };
        let mut pauses = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut told = String::new();
        loop {
            for server in servers {
                match join_at(server, token.ca(), &request).await {
                    Ok(JoinAnswer::Joined(grant)) => {
                        ensure!(
                            Fingerprint::of(&grant.ca_certificate) == token.ca(),
                            "the server has another authority than the one in the join token"
                        );
                        info!(gateway.id = %grant.gateway, location = %grant.location, "joined");
                        let kept = Kept { grant, issued_at: Timestamp::now() };
                        let joined = Self::of(dir, kept)?;
                        joined.keep()?;
                        return Ok(joined);
                    }
                    Ok(JoinAnswer::Refused { refusal }) => {
                        bail!(LastingRefusal(format!("refused by {server}: {refusal} ({})", request.token)))
                    }
                    Ok(JoinAnswer::Unavailable) => {
                        warn!(server, "the server cannot answer at the moment");
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        if error != told {
                            warn!(server, error, "cannot join yet; retrying until this is stopped");
                            told = error;
                        }
                    }
                }
            }
            sleep(pauses.randomized()).await;
        }
    }

    fn of(dir: &Path, kept: Kept) -> anyhow::Result<Self> {
        let key = PrivateKey::load(&dir.join(KEY))?.with_context(|| {
            format!("{} is missing: restore it, or have the gateway join again", dir.join(KEY).display())
        })?;
        let Kept { grant, issued_at } = &kept;
        let ca = CaCertificate::from_der(grant.ca_certificate.clone())?;
        let identity = GatewayIdentity::new(&ca, key, grant.certificate.clone())?;
        let tls = LinkTls::new(&ca, &identity)?;
        Ok(Self {
            id: grant.gateway,
            location: grant.location.clone(),
            servers: grant.servers.clone(),
            identity,
            tls,
            issued_at: *issued_at,
            file: dir.join(JOINED),
            kept,
        })
    }

    /// Whose the files of a state directory are: the gateway and its authority.
    pub(crate) fn owner(&self) -> String {
        format!("{}@{}", self.id, Fingerprint::of(&self.kept.grant.ca_certificate))
    }

    fn keep(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.kept)?;
        private_file::replace(&self.file, &text)
            .with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Keeps what a server has told.
    pub(crate) fn told(&mut self, told: ToKeep) -> anyhow::Result<()> {
        match told {
            ToKeep::Certificate(certificate) => {
                self.kept.grant.certificate = certificate;
                self.kept.issued_at = Timestamp::now();
            }
            ToKeep::Servers(servers) => self.kept.grant.servers = servers,
            // Its caller ends the gateway.
            ToKeep::Ended => return Ok(()),
        }
        self.keep()
    }
}

/// Whether a state directory is that of a gateway that has joined. One that cannot be read has not, as far as is known.
pub(crate) fn has_joined(dir: &Path) -> bool {
    dir.join(JOINED).exists()
}

async fn join_at(server: &str, ca: Fingerprint, request: &JoinRequest) -> anyhow::Result<JoinAnswer> {
    let asked = async {
        let tcp = TcpStream::connect(server).await?;
        let mut control = connect_join(ca, tcp).await?;
        control.send(request).await?;
        anyhow::Ok(control.receive::<JoinAnswer>().await?)
    };
    timeout(ANSWER_WITHIN, asked).await.context("it does not answer")?
}
