//! The errors of `/oauth/token`.

wicketgate_model::text_enum!(
    /// `error` of the token endpoint's errors (RFC 6749 §5.2).
    OAuthErrorCode {
        /// The request for a JWT breaks a rule of OAuth, which the description names.
        InvalidRequest = "invalid_request",
        /// The client id or its secret is missing or wrong, or the account has expired.
        InvalidClient = "invalid_client",
        /// The account does not have all scopes that were requested.
        InvalidScope = "invalid_scope",
        /// The request names another grant than `client_credentials`.
        UnsupportedGrantType = "unsupported_grant_type",
        /// The server cannot issue JWTs now: most often, its database does not answer.
        TemporarilyUnavailable = "temporarily_unavailable",
    }
);
