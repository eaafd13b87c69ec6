//! The flags that name an identity provider of the operator's own.

use clap::Args;
use wicketgate_server::auth::oidc::ProviderConfig;

#[derive(Debug, Args)]
pub(super) struct Oidc {
    /// An OpenID provider whose tokens open the API, as it stands in their `iss`. API accounts work beside it.
    #[arg(long, value_name = "URL", requires = "oidc_audience")]
    oidc_issuer: Option<String>,
    /// What a token's `aud` must have to be for this server. May be given several times.
    #[arg(long, value_name = "AUDIENCE", requires = "oidc_issuer")]
    oidc_audience: Vec<String>,
    /// The claim that names the caller's organization.
    #[arg(long, value_name = "CLAIM", default_value = "organization")]
    oidc_organization_claim: String,
    /// The claim that has the caller's scopes: a text with spaces, or an array.
    #[arg(long, value_name = "CLAIM", default_value = "scope")]
    oidc_scope_claim: String,
}

impl Oidc {
    pub(super) fn provider(self) -> Option<ProviderConfig> {
        Some(ProviderConfig {
            issuer: self.oidc_issuer?,
            audiences: self.oidc_audience,
            organization_claim: self.oidc_organization_claim,
            scope_claim: self.oidc_scope_claim,
        })
    }
}
