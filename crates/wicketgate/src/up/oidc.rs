//! The flags for an identity provider of the operator.

use clap::Args;
use wicketgate_server::auth::oidc::ProviderConfig;

#[derive(Debug, Args)]
pub(super) struct Oidc {
    /// Issuer of an OpenID provider whose tokens the API accepts, exactly as in their `iss`. API accounts remain valid.
    #[arg(long, value_name = "URL", requires = "oidc_audience")]
    oidc_issuer: Option<String>,
    /// The value that a token's `aud` must contain. May be repeated.
    #[arg(long, value_name = "AUDIENCE", requires = "oidc_issuer")]
    oidc_audience: Vec<String>,
    /// The claim with the caller's organization.
    #[arg(long, value_name = "CLAIM", default_value = "organization")]
    oidc_organization_claim: String,
    /// The claim with the caller's scopes: a space-separated string or an array.
    #[arg(long, value_name = "CLAIM", default_value = "scope")]
    oidc_scope_claim: String,
}

impl Oidc {
    /// # Errors
    /// A flag has a value that cannot be right.
    pub(super) fn provider(&self) -> anyhow::Result<Option<ProviderConfig>> {
        let config = self.oidc_issuer.clone().map(|issuer| ProviderConfig {
            issuer,
            audiences: self.oidc_audience.clone(),
            organization_claim: self.oidc_organization_claim.clone(),
            scope_claim: self.oidc_scope_claim.clone(),
        });
        config.as_ref().map_or(Ok(()), ProviderConfig::validate)?;
        Ok(config)
    }
}
