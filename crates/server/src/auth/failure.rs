//! Why an authentication fails, as an answer carries it to the record of failures.

use wicketgate_store::AuthenticationSubject;

wicketgate_model::text_enum!(
    /// The label `reason` of the metric, and of the log.
    FailureCause {
        /// A token that this server has not issued, or whose account was revoked.
        TokenInvalid = "token_invalid",
        /// A token that was valid.
        TokenExpired = "token_expired",
        /// The secret or a token of an account that has ended.
        AccountExpired = "account_expired",
        /// A token of the identity provider that names no organization.
        NoOrganization = "no_organization",
        /// `/oauth/token` with the id of no account.
        ClientUnknown = "client_unknown",
        /// `/oauth/token` with an account's id, and without its secret.
        SecretWrong = "secret_wrong",
        /// The cookie of a session that has ended, or of none.
        SessionEnded = "session_ended",
        /// A session's cookie from a page of another origin.
        CsrfTokenMissing = "csrf_token_missing",
        /// The identity provider has not confirmed who signs in.
        SignInRefused = "sign_in_refused",
        /// The token of no handover link and of no session of one, or of a link that cannot be opened any more.
        LinkInvalid = "link_invalid",
        PassphraseWrong = "passphrase_wrong",
        /// An agent's enrolment with the id of a code, and without its secret.
        CodeWrong = "code_wrong",
        /// An agent's enrolment with a code that another one has used.
        CodeUsed = "code_used",
        /// An agent's enrolment with a code that has expired or was revoked.
        CodeExpired = "code_expired",
        /// An agent's enrolment with a code that was tried too often.
        CodeTried = "code_tried",
    }
);

/// A failed authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AuthenticationFailure {
    pub(crate) cause: FailureCause,
    /// `None`: what was shown belongs to no account and no link.
    pub(crate) subject: Option<AuthenticationSubject>,
}

impl From<FailureCause> for AuthenticationFailure {
    fn from(cause: FailureCause) -> Self {
        Self { cause, subject: None }
    }
}

impl FailureCause {
    /// The end of what was valid. It happens to everyone, every day, and is counted only.
    pub(crate) fn is_everyday(self) -> bool {
        matches!(self, Self::TokenExpired | Self::SessionEnded)
    }

    /// As an execution says it.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::TokenInvalid => "the token is invalid",
            Self::TokenExpired => "the token has expired",
            Self::AccountExpired => "the account has expired",
            Self::NoOrganization => "the token names no organization",
            Self::ClientUnknown => "the client id is unknown",
            Self::SecretWrong => "the secret is wrong",
            Self::SessionEnded => "the session has ended",
            Self::CsrfTokenMissing => "the request came from a page of another origin",
            Self::SignInRefused => "the identity provider has not confirmed the sign-in",
            Self::LinkInvalid => "the link cannot be opened any more",
            Self::PassphraseWrong => "the passphrase is wrong",
            Self::CodeWrong => "an agent's enrolment code is wrong",
            Self::CodeUsed => "an agent's enrolment code was used already",
            Self::CodeExpired => "an agent's enrolment code has expired or was revoked",
            Self::CodeTried => "an agent's enrolment code was tried too often",
        }
    }
}
