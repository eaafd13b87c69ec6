//! The flags for an identity provider of the operator.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use wicketgate_server::auth::oidc::{CodeClient, ProviderConfig};
use wicketgate_system::private_file;

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
    /// This server's client id at the provider: with it, people sign in to the web console by the provider. Its redirect URI
    /// there is the console's address and `/console/callback`.
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    oidc_client_id: Option<String>,
    /// File with the client's secret, which other users of the host cannot read. A public client has none.
    #[arg(long, value_name = "FILE", requires = "oidc_client_id")]
    oidc_client_secret_file: Option<PathBuf>,
    /// The scopes to request when people sign in, separated by spaces.
    #[arg(long, value_name = "SCOPES", default_value = "openid frontdoor.read frontdoor.write")]
    oidc_client_scope: String,
    /// A further parameter that the provider wants when people sign in, such as `audience` or `resource`. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter, requires = "oidc_client_id")]
    oidc_client_parameter: Vec<(String, String)>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "must be NAME=VALUE".to_owned())
}

impl Oidc {
    /// # Errors
    /// A flag has a value that cannot be right.
    pub(super) fn provider(&self) -> anyhow::Result<Option<ProviderConfig>> {
        let client = self.client()?;
        let config = self.oidc_issuer.clone().map(|issuer| ProviderConfig {
            issuer,
            audiences: self.oidc_audience.clone(),
            organization_claim: self.oidc_organization_claim.clone(),
            scope_claim: self.oidc_scope_claim.clone(),
            client,
        });
        config.as_ref().map_or(Ok(()), ProviderConfig::validate)?;
        Ok(config)
    }

    fn client(&self) -> anyhow::Result<Option<CodeClient>> {
        let Some(id) = self.oidc_client_id.clone() else { return Ok(None) };
        let read = |path: &PathBuf| {
            let secret = private_file::read_secret(path);
            secret.with_context(|| format!("cannot read --oidc-client-secret-file {}", path.display()))
        };
        let secret = self.oidc_client_secret_file.as_ref().map(read).transpose()?;
        Ok(Some(CodeClient {
            id,
            secret: secret.map(|secret| secret.trim().to_owned().into()),
            scope: self.oidc_client_scope.clone(),
            parameters: self.oidc_client_parameter.clone(),
        }))
    }
}
