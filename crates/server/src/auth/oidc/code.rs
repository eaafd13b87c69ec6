//! People sign in at the provider by an authorization code (RFC 6749 §4.1) with PKCE (RFC 7636, S256).
//!
//! Invariants: a code is redeemed only with the verifier that the same browser began with. Who has signed in is what the
//! access token says, checked as the tokens of programs are.

use super::{FetchError, Provider};
use crate::auth::{Principal, Refused, token_end};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use form_urlencoded::{Serializer, byte_serialize};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tracing::warn;

/// This server at the provider.
#[derive(Debug, Clone)]
pub struct CodeClient {
    pub id: String,
    /// `None`: a public client.
    pub secret: Option<SecretString>,
    /// The scopes to ask for, with spaces between them.
    pub scope: String,
    /// What else the provider wants, such as `audience` or `resource` (RFC 8707): names and values.
    pub parameters: Vec<(String, String)>,
}

/// A sign-in that was begun. Its browser keeps both until the provider sends it back.
#[derive(Debug)]
pub(crate) struct CodeRequest {
    pub(crate) state: String,
    pub(crate) verifier: SecretString,
}

/// Why a person could not sign in at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeFault {
    ProviderDown,
    /// The provider refuses the code, or this client.
    CodeRefused,
    /// The provider's access token is not one that the API accepts.
    TokenRefused,
    /// The access token names no organization.
    NoOrganization,
}

impl CodeRequest {
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let random = || {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map(|()| URL_SAFE_NO_PAD.encode(random))
        };
        Ok(Self { state: random()?, verifier: random()?.into() })
    }

    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose_secret()))
    }
}

impl Provider {
    /// Whether people can sign in by it.
    pub(crate) fn signs_in(&self) -> bool {
        self.config.client.is_some()
    }

    /// Where the browser goes. `redirect` is where the provider sends it afterwards.
    pub(crate) fn authorization_url(&self, begun: &CodeRequest, redirect: &str) -> Result<String, CodeFault> {
        let (client, endpoints) = self.client()?;
        let mut url = endpoints.authorization;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", &client.scope)
            .append_pair("state", &begun.state)
            .append_pair("code_challenge", &begun.challenge())
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(&client.parameters);
        Ok(url.into())
    }

    /// Exchanges the code for the person's access token, and checks that. Returns whom it names, and when it ends.
    pub(crate) async fn redeem(
        &self,
        code: &str,
        verifier: &SecretString,
        redirect: &str,
    ) -> Result<(Principal, Option<Timestamp>), CodeFault> {
        let (client, endpoints) = self.client()?;
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("client_id", &client.id)
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect)
            .append_pair("code_verifier", verifier.expose_secret())
            .extend_pairs(&client.parameters)
            .finish();
        // RFC 6749 §2.3.1: both are encoded as in a form.
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let secret =
            client.secret.as_ref().map(|secret| (encoded(&client.id), encoded(secret.expose_secret())));
        let answer = self.fetch.token(endpoints.token, form, secret).await.map_err(|error| {
            warn!(issuer = self.issuer(), %error, "the identity provider did not exchange a code for a token");
            match error {
                FetchError::Down(_) => CodeFault::ProviderDown,
                FetchError::Wrong(_) => CodeFault::CodeRefused,
            }
        })?;
        let token = answer["access_token"].as_str().unwrap_or_default();
        let principal = self.verify(token).await.map_err(|refused| {
            warn!(issuer = self.issuer(), %refused, "the access token of a person who signed in is refused");
            match refused {
                Refused::NoOrganization => CodeFault::NoOrganization,
                Refused::ProviderDown => CodeFault::ProviderDown,
                Refused::Invalid | Refused::Expired | Refused::AccountExpired(..) => CodeFault::TokenRefused,
            }
        })?;
        Ok((principal, token_end(token)))
    }

    fn client(&self) -> Result<(&CodeClient, super::Endpoints), CodeFault> {
        let client = self.config.client.as_ref().ok_or(CodeFault::CodeRefused)?;
        let endpoints = self.endpoints.get().as_ref().clone().ok_or(CodeFault::ProviderDown)?;
        Ok((client, endpoints))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let begun = CodeRequest { state: String::new(), verifier: verifier.into() };
        assert_eq!(begun.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
