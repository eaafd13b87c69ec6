//! charon's configuration: its file, which holds no secret, and the connection and keys over VICI.

use std::net::Ipv4Addr;

use wicketgate_model::{
    EspMode, EspProposals, Generation, IkeProposals, PeerCidr, PeerId, PreSharedKey, ResetScope,
    TunnelDesired,
};
use wicketgate_vici::{Client, Error, Message};

use super::suite;

/// The names of a charon's only connection and its only child.
pub(super) const CONNECTION: &str = "tunnel";
pub(super) const CHILD: &str = "site";

/// Connections that no peer can use: they require a certificate, and have no child. charon says which of them a peer with
/// another identity than the tunnel's matches, and so the identity's type, which it does not show otherwise. A peer with the
/// tunnel's identity matches that better.
pub(super) const FQDN_PROBE: &str = "identity-fqdn";
pub(super) const EMAIL_PROBE: &str = "identity-email";
pub(super) const KEY_ID_PROBE: &str = "identity-keyid";

/// After this time without a packet, the peer is asked for a sign of life: with the first repetitions, a connection through
/// which nothing passes is known within five seconds. While traffic arrives, nothing is asked.
const DPD_DELAY: &str = "2s";
const IKE_REKEY: &str = "8h";
const CHILD_REKEY: &str = "1h";

/// The file. The order of plugins is their priority: kernel-libipsec stands before kernel-netlink, which is still
/// needed for addresses and routes. Paths are as charon sees them, see [`super::charon`]. kernel-libipsec and the
/// sockets occupy eight threads, so there are more. The log has the start; the rest arrives as events.
pub(super) fn file(esp: EspMode) -> String {
    let libipsec = if esp == EspMode::Userland { "kernel-libipsec " } else { "" };
    include_str!("strongswan.conf").replace("{libipsec}", libipsec)
}

/// The identities and traffic selectors of both ends: the peer may ask for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) gateway_id: String,
    pub(super) peer_id: PeerId,
    pub(super) load_balancer: Ipv4Addr,
    pub(super) peer_cidr: PeerCidr,
}

/// The configuration that one charon should have loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CharonConfig {
    pub(super) connection: Message,
    pub(super) ends: Ends,
    pub(super) keys: Vec<PreSharedKey>,
    /// The gateway initiates. Not through charon's start actions, which end an established connection when it is loaded
    /// again, for example with another key.
    pub(super) initiate: bool,
    /// charon's own address.
    pub(super) inside: Ipv4Addr,
    pub(super) peer: Ipv4Addr,
    /// SAs of before this generation are ended.
    pub(super) cut: Option<Generation>,
    ike_proposals: IkeProposals,
    esp_proposals: EspProposals,
}

impl CharonConfig {
    pub(super) fn new(tunnel: &TunnelDesired, esp: EspMode, public: Ipv4Addr, inside: Ipv4Addr) -> Self {
        let ends = Ends {
            gateway_id: public.to_string(),
            peer_id: tunnel.peer_id.clone(),
            load_balancer: tunnel.load_balancer_ip,
            peer_cidr: tunnel.peer_cidr,
        };
        let encap = if esp == EspMode::Userland { "yes" } else { "no" };
        let end = |id: &str| Message::new().set("auth", "psk").set("id", id);
        let child = Message::new()
            .list("local_ts", [format!("{}/32", tunnel.load_balancer_ip)])
            .list("remote_ts", [tunnel.peer_cidr.to_string()])
            .list("esp_proposals", tunnel.esp_proposals.all().iter().map(suite::esp_keywords))
            .set("mode", "tunnel")
            .set("start_action", "none")
            .set("dpd_action", "clear")
            .set("rekey_time", CHILD_REKEY);
        let connection = Message::new()
            .set("version", "2")
            .list("local_addrs", [inside.to_string()])
            .list("remote_addrs", [tunnel.peer_address.to_string()])
            .list("proposals", tunnel.ike_proposals.all().iter().map(suite::ike_keywords))
            .set("encap", encap)
            .set("mobike", "no")
            .set("dpd_delay", DPD_DELAY)
            .set("rekey_time", IKE_REKEY)
            // If both ends initiate, both SAs may be established. charon would end the older one after 10 s, the device
            // would start it again, and so on: so both stay. SAs that a rebooted device left go with INITIAL_CONTACT, or
            // by dead peer detection.
            .set("unique", "no")
            .section("local-1", end(&ends.gateway_id))
            .section("remote-1", end(&ends.peer_id.in_strongswan()))
            .section("children", Message::new().section(CHILD, child));
        Self {
            connection: Message::new().section(CONNECTION, connection),
            ends,
            keys: tunnel.keys.clone(),
            initiate: tunnel.initiate,
            inside,
            peer: tunnel.peer_address.get(),
            cut: tunnel.cut,
            ike_proposals: tunnel.ike_proposals.clone(),
            esp_proposals: tunnel.esp_proposals.clone(),
        }
    }

    /// Loads the configuration. SAs of another peer, identity or network are ended, and SAs with algorithms that are no
    /// longer allowed, which rekeys would keep. A change of keys ends none. `before` is what was loaded, as far as known.
    pub(super) async fn load(&self, client: &mut Client, before: Option<&Self>) -> Result<(), Error> {
        // charon lists identities without their types.
        let is_other = before.is_some_and(|before| before.ends != self.ends) || self.differs(client).await?;
        self.load_keys(client).await?;
        client.request("load-conn", self.connection.clone()).await?;
        let key_id = format!("keyid:{}", self.ends.peer_id.value());
        for (name, id) in [(FQDN_PROBE, "fqdn:*"), (EMAIL_PROBE, "email:*"), (KEY_ID_PROBE, key_id.as_str())]
        {
            client.request("load-conn", Message::new().section(name, self.probe(id))).await?;
        }
        if is_other || self.has_other_suites(client).await? {
            // Every SA; none is not an error.
            attempt(client, "terminate", Message::new()).await?;
        }
        Ok(())
    }

    /// Has the gateway initiate to `port`, which a NAT gave the peer, from the port of NAT traversal (RFC 7296 §2.23); `None`: as
    /// usual.
    pub(super) async fn aim(&self, client: &mut Client, port: Option<u16>) -> Result<(), Error> {
        let aimed = self.connection.sub(CONNECTION).zip(port).map(|(connection, port)| {
            let ports = connection.clone().set("local_port", "4500").set("remote_port", port.to_string());
            Message::new().section(CONNECTION, ports)
        });
        client.request("load-conn", aimed.unwrap_or_else(|| self.connection.clone())).await.map(drop)
    }

    /// See [`FQDN_PROBE`]. Its IKE proposals are the tunnel's: charon may negotiate an IKE SA by any connection.
    fn probe(&self, id: &str) -> Message {
        Message::new()
            .set("version", "2")
            .list("remote_addrs", ["%any"])
            .list("proposals", self.ike_proposals.all().iter().map(suite::ike_keywords))
            .section("local-1", Message::new().set("auth", "psk"))
            .section("remote-1", Message::new().set("auth", "pubkey").set("id", id))
    }

    /// Whether charon has the connection loaded for another peer.
    async fn differs(&self, client: &mut Client) -> Result<bool, Error> {
        let loaded = client.stream_request("list-conns", "list-conn", Message::new()).await?;
        let Some(has) = loaded.iter().find_map(|part| part.sub(CONNECTION)) else { return Ok(false) };
        let Some(wants) = self.connection.sub(CONNECTION) else { return Ok(true) };
        Ok(peer(has, "local-ts", "remote-ts") != peer(wants, "local_ts", "remote_ts"))
    }

    async fn has_other_suites(&self, client: &mut Client) -> Result<bool, Error> {
        let sas = client.stream_request("list-sas", "list-sa", Message::new()).await?;
        let mut sas = sas.iter().flat_map(Message::sections).map(|(_, sa)| sa);
        Ok(sas.any(|sa| !suite::is_within(sa, &self.ike_proposals, &self.esp_proposals)))
    }

    /// Loads the keys and unloads the others. A key's id is its index. The oldest is loaded first, so that no valid key
    /// is missing in between.
    async fn load_keys(&self, client: &mut Client) -> Result<(), Error> {
        for place in (0..self.keys.len()).rev() {
            self.load_key(client, place).await?;
        }
        let loaded = client.request("get-shared", Message::new()).await?;
        for id in loaded.texts("keys") {
            let place = id.strip_prefix("key-").and_then(|p| p.parse::<usize>().ok());
            if place.is_none_or(|p| p >= self.keys.len()) {
                client.request("unload-shared", Message::new().set("id", id)).await?;
            }
        }
        Ok(())
    }

    /// Loads the key at `place`, again if it is loaded. charon accepts any of the keys from the peer, and authenticates
    /// itself with the one that was loaded last.
    pub(super) async fn load_key(&self, client: &mut Client, place: usize) -> Result<(), Error> {
        let Some(key) = self.keys.get(place) else { return Ok(()) };
        let message = Message::new()
            .set("id", format!("key-{place}"))
            .set("type", "IKE")
            .set("data", key.expose())
            .list("owners", [self.ends.gateway_id.clone(), self.ends.peer_id.in_strongswan()]);
        client.request("load-shared", message).await.map(|_| ())
    }
}

/// What a connection says about its peer. The keys of traffic selectors depend on the direction of the message.
fn peer<'a>(connection: &'a Message, local: &str, remote: &str) -> Option<[Vec<&'a str>; 6]> {
    let id =
        |end: &str| connection.sub(end).and_then(|end| end.text("id")).map(untyped).into_iter().collect();
    let child = connection.sub("children")?.sub(CHILD)?;
    Some([
        connection.texts("local_addrs"),
        connection.texts("remote_addrs"),
        id("local-1"),
        id("remote-1"),
        child.texts(local),
        child.texts(remote),
    ])
}

/// An identity as charon lists it: without its type.
fn untyped(id: &str) -> &str {
    ["fqdn:", "email:", "keyid:"].iter().find_map(|kind| id.strip_prefix(kind)).unwrap_or(id)
}

/// The unique id of an IKE SA that is not established, if another address than the peer's is its other end.
fn begun_by_another(part: &Message, peer: Ipv4Addr) -> Option<&str> {
    let (_, ike) = part.sections().next()?;
    let other: Ipv4Addr = ike.text("remote-host")?.parse().ok()?;
    (ike.text("state") == Some("CONNECTING") && other != peer).then(|| ike.text("uniqueid"))?
}

/// Ends the attempts among the SAs in `listed` whose other end has another address than the peer, and takes them from the list.
/// After a change of the address, the device at the former one may begin another attempt before its packets are dropped:
/// charon would hold it for half a minute, and it would look like one of the peer whose packets are lost.
pub(super) async fn end_others(
    client: &mut Client,
    listed: &mut Vec<Message>,
    peer: Ipv4Addr,
) -> Result<(), Error> {
    let of_others: Vec<_> = listed.extract_if(.., |part| begun_by_another(part, peer).is_some()).collect();
    for id in of_others.iter().filter_map(|part| begun_by_another(part, peer)) {
        let this = Message::new().set("ike-id", id).set("force", "yes").set("timeout", "-1");
        accepted(client.request("terminate", this).await)?;
    }
    Ok(())
}

/// Makes charon initiate once, without waiting for the result. It may refuse during another attempt.
pub(super) async fn initiate(client: &mut Client) -> Result<(), Error> {
    attempt(client, "initiate", Message::new().set("child", CHILD)).await
}

/// Ends the SAs of a scope without waiting for the peer, which is told. None is not an error.
pub(super) async fn end(client: &mut Client, scope: ResetScope) -> Result<(), Error> {
    match scope {
        ResetScope::Ike => attempt(client, "terminate", Message::new().set("force", "yes")).await,
        ResetScope::Child => attempt(client, "terminate", Message::new().set("child", CHILD)).await,
    }
}

/// Makes charon begin to rekey.
///
/// # Errors
/// [`Error::Failed`]: there is none, or it is being rekeyed.
pub(super) async fn rekey(client: &mut Client, scope: ResetScope) -> Result<(), Error> {
    let what = match scope {
        ResetScope::Ike => Message::new().set("ike", CONNECTION),
        ResetScope::Child => Message::new().set("child", CHILD),
    };
    client.request("rekey", what).await.map(drop)
}

/// Sends a command about the connection that charon may refuse.
async fn attempt(client: &mut Client, command: &str, message: Message) -> Result<(), Error> {
    accepted(client.request(command, message.set("ike", CONNECTION).set("timeout", "-1")).await)
}

/// charon refuses to end what is not there.
fn accepted(answer: Result<Message, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) | Err(Error::Failed { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
