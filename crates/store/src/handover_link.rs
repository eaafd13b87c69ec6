//! Handover links: each gives the engineer of a remote site access to one tunnel's configuration and state, by a session for
//! each time that it is opened. Only the SHA-256 of a link's or a session's token is stored.
//!
//! Invariant: a session ends with its link, and a link with its tunnel's key: neither a deleted tunnel nor one with another key
//! has a link from before that is not revoked.

use crate::{
    Action, ListRequest, Page, ResourceType, Result, Store, StoreError, TunnelRow, WriteContext,
    execution::Execution,
    list::Listing,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{Description, FrontdoorId, HandoverLinkId, MaxUses, QuotaKind, TunnelId, text_enum};

/// Links of a tunnel that have not ended: more than engineers that a site has, and few enough to look through.
pub const MOST_LINKS: u32 = 20;

/// How many links of a tunnel have not ended at a time, as [`HandoverLinkRow::has_ended`] says it.
const NOT_ENDED: &str =
    "SELECT COUNT(*) FROM handover_link WHERE tunnel = $1 AND revoked_at IS NULL AND expires_at > $2";

rows! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct HandoverLinkRow {
        pub id: HandoverLinkId,
        pub frontdoor: FrontdoorId,
        pub tunnel: TunnelId,
        pub spec: HandoverLinkSpec,
        /// How often it was opened.
        pub uses: u32,
        pub last_used_at: Option<Timestamp>,
        pub created_at: Timestamp,
        pub created_by: String,
        pub revoked_at: Option<Timestamp>,
    }
}

specs! {
    /// What a caller decides about a link.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct HandoverLinkSpec {
        pub description: Option<Description>,
        pub expires_at: Timestamp,
        pub max_uses: MaxUses,
        /// What the caller keeps to recognize the passphrase; `None`: the token is enough.
        pub passphrase: Option<String>,
        /// Of the token, which has 256 random bits: nothing slower is needed to keep it from being guessed.
        pub token_sha256: [u8; 32],
    }
}

text_enum!(
    /// Whether a link can be opened.
    HandoverLinkState {
        Active = "ACTIVE",
        /// Its `expires_at` has passed.
        Expired = "EXPIRED",
        /// It was opened as often as it may be. Its sessions go on.
        UsedUp = "USED_UP",
        /// It was revoked, or its tunnel was deleted or got another key.
        Revoked = "REVOKED",
    }
);

impl HandoverLinkRow {
    pub fn state(&self, now: Timestamp) -> HandoverLinkState {
        match () {
            () if self.revoked_at.is_some() => HandoverLinkState::Revoked,
            () if self.spec.expires_at <= now => HandoverLinkState::Expired,
            () if self.uses >= self.spec.max_uses.get() => HandoverLinkState::UsedUp,
            () => HandoverLinkState::Active,
        }
    }

    /// Whether the sessions that it has opened have ended.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        matches!(self.state(now), HandoverLinkState::Revoked | HandoverLinkState::Expired)
    }
}

impl Store {
    /// The links of a tunnel, also those that can't be opened any more.
    pub async fn handover_links(
        &self,
        tunnel: TunnelId,
        request: &ListRequest,
    ) -> Result<Page<HandoverLinkRow>> {
        self.list(&LISTING, Some((&columns::TUNNEL, vec![tunnel.to_string()])), request).await
    }

    pub async fn handover_link(
        &self,
        tunnel: TunnelId,
        id: HandoverLinkId,
    ) -> Result<Option<HandoverLinkRow>> {
        self.find(LISTING.find("h.id = $1 AND h.tunnel = $2"), &[&id, &tunnel]).await
    }

    /// The link with this token, whatever its state. The lookup's time depends on a hash, whose digits a caller cannot choose.
    pub async fn handover_link_with_token(&self, token_sha256: &[u8; 32]) -> Result<Option<HandoverLinkRow>> {
        self.find(LISTING.find("h.token_sha256 = $1"), &[token_sha256]).await
    }

    /// The link that has opened the session with this token, whatever its state.
    pub async fn handover_link_of_session(&self, token_sha256: &[u8; 32]) -> Result<Option<HandoverLinkRow>> {
        let select =
            "SELECT h.* FROM site_session s JOIN handover_link h ON h.id = s.link WHERE s.token_sha256 = $1";
        self.find(select, &[token_sha256]).await
    }

    /// Fails as [`Self::create_handover_link`] would now for want of room at the tunnel. Only that one decides.
    pub async fn has_room_for_link(&self, tunnel: TunnelId, at: Timestamp) -> Result<()> {
        let count: Option<(u32,)> = self.find(NOT_ENDED, &[&tunnel, &at]).await?;
        room_beside(count.map_or(0, |(count,)| count))
    }

    /// For a tunnel that is live. Fails with [`StoreError::TooManyLinks`] while [`MOST_LINKS`] of its links have not ended.
    pub async fn create_handover_link(
        &self,
        frontdoor: FrontdoorId,
        tunnel: TunnelId,
        spec: &HandoverLinkSpec,
        context: &WriteContext,
    ) -> Result<HandoverLinkRow> {
        let spec = spec.clone();
        self.write(context, move |write| {
            async move {
                let _: TunnelRow = write.live(frontdoor, &tunnel).await?;
                write.has_room_for_link(tunnel).await?;
                write.need_room(&[frontdoor], QuotaKind::HandoverLinks).await?;
                let id = HandoverLinkId::new((write.context.fresh)());
                let set = Assignments::of(&spec).and(&[
                    ("id", &id),
                    ("frontdoor", &frontdoor),
                    ("tunnel", &tunnel),
                    ("uses", &0_u32),
                    ("created_at", &write.context.at),
                    ("created_by", &write.context.actor),
                ]);
                let row = write.tx.row(set.insert("handover_link", "RETURNING *")?).await?;
                write.record_link(frontdoor, id, Action::Create).await?;
                row.ok_or(StoreError::Stale)
            }
            .boxed()
        })
        .await
    }

    /// Counts a use of the link and keeps the session that it opens. `None`: the link can't be opened, and nothing was written.
    pub async fn open_handover_link(
        &self,
        id: HandoverLinkId,
        session_sha256: [u8; 32],
        context: &WriteContext,
    ) -> Result<Option<HandoverLinkRow>> {
        self.write(context, move |write| {
            async move {
                let at = write.context.at;
                let count = "UPDATE handover_link SET uses = uses + 1, last_used_at = $1 WHERE id = $2 \
                             AND revoked_at IS NULL AND expires_at > $1 AND uses < max_uses RETURNING *";
                let opened: Option<HandoverLinkRow> = write.tx.find(count, &[&at, &id]).await?;
                let Some(link) = opened else { return Ok(None) };
                let insert = "INSERT INTO site_session (token_sha256, link, created_at) VALUES ($1, $2, $3)";
                write.tx.execute(insert, &[&session_sha256, &id, &at]).await?;
                write.record_link(link.frontdoor, id, Action::Open).await?;
                Ok(Some(link))
            }
            .boxed()
        })
        .await
    }

    /// Ends the link and its sessions. Does nothing if the link was revoked before.
    pub async fn revoke_handover_link(
        &self,
        frontdoor: FrontdoorId,
        id: HandoverLinkId,
        context: &WriteContext,
    ) -> Result<()> {
        self.write(context, move |write| {
            async move {
                let revoke = "UPDATE handover_link SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
                match write.tx.execute(revoke, &[&write.context.at, &id]).await? {
                    0 => Ok(()),
                    _ => write.record_link(frontdoor, id, Action::Delete).await,
                }
            }
            .boxed()
        })
        .await
    }
}

impl Write {
    /// No other write counts at the same time: this one has locked the tunnel.
    async fn has_room_for_link(&mut self, tunnel: TunnelId) -> Result<()> {
        let (count,): (u32,) = self.tx.one(NOT_ENDED, &[&tunnel, &self.context.at]).await?;
        room_beside(count)
    }

    async fn record_link(
        &mut self,
        frontdoor: FrontdoorId,
        id: HandoverLinkId,
        action: Action,
    ) -> Result<()> {
        self.record(frontdoor, action, Execution::of(ResourceType::HandoverLink, &id)).await.map(drop)
    }

    /// Ends the links of a tunnel that is deleted, or whose key is replaced.
    pub(crate) async fn revoke_links_of(&mut self, tunnel: TunnelId) -> Result<()> {
        let revoke = "UPDATE handover_link SET revoked_at = $1 WHERE tunnel = $2 AND revoked_at IS NULL";
        self.tx.execute(revoke, &[&self.context.at, &tunnel]).await.map(drop)
    }
}

fn room_beside(count: u32) -> Result<()> {
    if count < MOST_LINKS { Ok(()) } else { Err(StoreError::TooManyLinks(count)) }
}

pub(crate) static LISTING: Listing = Listing::new("h.*", "handover_link h", "h.id");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("h.id");
        TUNNEL = Text("h.tunnel");
        DESCRIPTION = Text("h.description").optional();
        EXPIRES_AT = Time("h.expires_at");
        MAX_USES = Integer("h.max_uses");
        USES = Integer("h.uses");
        LAST_USED_AT = Time("h.last_used_at").optional();
        CREATED_AT = Time("h.created_at");
        CREATED_BY = Text("h.created_by");
        REVOKED_AT = Time("h.revoked_at").optional();
    }
}
