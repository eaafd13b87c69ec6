//! What a server is told: where its API is, how far requests may go, and who signs people in.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tokio::net::TcpListener;
use tracing::warn;
use wicketgate_model::{LoadBalancerPool, QuotaSetting};
use wicketgate_server::{ApiTls, ExternalUrl, RateSetting, TrustedProxy, auth::oidc::ProviderConfig};
use wicketgate_system::{private_file::open_to_others, program::WrongUsage};

use super::{listen, oidc::Oidc, socket_address};

/// The settings that decide about the API's TLS.
pub(crate) const TLS: &[&str] = &["tls-cert", "tls-key", "listen", "insecure-http"];

/// The settings of the identity provider that are checked together.
pub(crate) const PROVIDER: &[&str] =
    &["oidc-issuer", "oidc-audience", "oidc-client-id", "oidc-client-secret-file", "oidc-client-parameter"];

#[derive(Debug, Args)]
pub(crate) struct ServerFlags {
    /// Address of the REST API.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8480", value_parser = socket_address)]
    pub(crate) listen: SocketAddr,
    /// The API's certificate with its chain, in PEM. A renewed file is used within seconds, without a restart.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the API's certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve the API without TLS on an address that other hosts can reach. Tokens and keys can then be intercepted.
    #[arg(long, conflicts_with = "tls_cert")]
    insecure_http: bool,
    /// The URL that clients reach the API at through a reverse proxy, with its path prefix; links begin with it.
    #[arg(long, value_name = "URL")]
    pub(crate) external_url: Option<ExternalUrl>,
    /// A reverse proxy whose X-Forwarded-Proto, -Host and -Prefix name that URL, and whose -For names the client; repeatable.
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Vec<TrustedProxy>,
    /// Address of /metrics for Prometheus, without TLS [default: none].
    #[arg(long, value_name = "ADDR:PORT", value_parser = socket_address)]
    admin_listen: Option<SocketAddr>,
    /// A network that load balancers' addresses come from; repeatable [default: 100.64.0.0/16 and 10.255.0.0/16]. Tunnels
    /// keep the addresses that they have.
    #[arg(long, value_name = "CIDR")]
    pub(crate) load_balancer_pool: Vec<LoadBalancerPool>,
    /// Seconds until a change that has not taken effect becomes ERROR. Retries continue after that.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) provisioning_deadline: u32,
    /// The most that a Frontdoor may have of a kind, like shares=5000; repeatable. The operator can set others for one
    /// Frontdoor.
    #[arg(long, value_name = "KIND=NUMBER")]
    pub(crate) quota: Vec<QuotaSetting>,
    /// Requests a second, and at once, of an account (reads, writes) or an address without a token (strangers), like
    /// writes=10:1000 or writes=off; repeatable.
    #[arg(long, value_name = "KIND=NUMBER:NUMBER")]
    pub(crate) rate_limit: Vec<RateSetting>,
    #[command(flatten)]
    oidc: Oidc,
}

impl ServerFlags {
    /// The API's certificate. Without one, the API must be on a loopback address.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<ApiTls>> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Ok(Some(ApiTls::load(certificate, key)?));
        }
        anyhow::ensure!(
            self.insecure_http || self.listen.ip().is_loopback(),
            WrongUsage(format!(
                "the API would be served without TLS on {}, which other hosts can reach: \
                 set --tls-cert and --tls-key, or --insecure-http",
                self.listen
            ))
        );
        Ok(None)
    }

    /// What may be a mistake. A start tells it in the log, too.
    pub(crate) fn doubts(&self) -> Vec<String> {
        self.tls_key.as_deref().and_then(open_to_others).into_iter().collect()
    }

    /// Of the API, and of the metrics if they have one.
    pub(crate) async fn listeners(&self) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
        for doubt in self.doubts() {
            warn!("{doubt}");
        }
        let api = listen(self.listen, "the API", "--listen").await?;
        let Some(address) = self.admin_listen else { return Ok((api, None)) };
        Ok((api, Some(listen(address, "metrics", "--admin-listen").await?)))
    }

    /// # Errors
    /// A flag of the identity provider has a value that cannot be right.
    pub(crate) fn provider(&self) -> anyhow::Result<Option<ProviderConfig>> {
        self.oidc.provider()
    }
}
