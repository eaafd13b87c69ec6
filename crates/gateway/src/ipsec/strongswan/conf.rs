//! What a charon is told: its configuration file, which holds no secret, and the connection and keys over VICI.

use std::net::Ipv4Addr;

use wicketgate_model::{EspMode, EspProposals, IkeProposals, PeerCidr, PreSharedKey, TunnelDesired};
use wicketgate_vici::{Client, Error, Message};

use super::suite;

/// The one connection of a tunnel's charon, and its one child.
pub(super) const CONNECTION: &str = "tunnel";
pub(super) const CHILD: &str = "site";

/// A dead peer is noticed after this and the retransmissions below, which last 13 s: in less than half a minute.
const DPD_DELAY: &str = "10s";
const IKE_REKEY: &str = "8h";
const CHILD_REKEY: &str = "1h";

/// The file. The order of the plugins is their priority, and there is no other list: kernel-libipsec stands before
/// kernel-netlink, which is still needed for addresses and routes. Paths are as charon sees them, see
/// [`super::charon`]. Eight threads are too few: kernel-libipsec and the sockets keep that many. The log has what
/// charon says when it starts; the rest goes out as events.
pub(super) fn file(esp: EspMode) -> String {
    let libipsec = if esp == EspMode::Userland { "kernel-libipsec " } else { "" };
    format!(
        "charon {{
  load = random nonce openssl pem pkcs1 kdf pubkey {libipsec}kernel-netlink socket-default vici
  threads = 16
  install_virtual_ip = no
  retransmit_tries = 4
  retransmit_timeout = 1.0
  retransmit_base = 1.5
  filelog {{
    log {{
      path = /run/charon.log
      append = no
      default = 0
      dmn = 1
      lib = 1
    }}
  }}
  plugins {{
    vici {{
      socket = unix:///run/charon.vici
    }}
  }}
}}
"
    )
}

/// What the two ends are to each other: the peer may ask for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) gateway_id: String,
    pub(super) peer_id: String,
    pub(super) load_balancer: Ipv4Addr,
    pub(super) peer_cidr: PeerCidr,
}

/// What one charon should have loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CharonConfig {
    pub(super) connection: Message,
    pub(super) ends: Ends,
    pub(super) keys: Vec<PreSharedKey>,
    /// The gateway starts the connection. Not by charon's own start actions, which end what is up when the connection is
    /// loaded again, as for another key.
    pub(super) initiate: bool,
    ike_proposals: IkeProposals,
    esp_proposals: EspProposals,
}

impl CharonConfig {
    pub(super) fn new(tunnel: &TunnelDesired, esp: EspMode, public: Ipv4Addr, inside: Ipv4Addr) -> Self {
        let ends = Ends {
            gateway_id: public.to_string(),
            peer_id: tunnel.peer_id.to_string(),
            load_balancer: tunnel.load_balancer_ip,
            peer_cidr: tunnel.peer_cidr,
        };
        let encap = if esp == EspMode::Userland { "yes" } else { "no" };
        // Where both ends call, both may get through. charon would end the older of the two SAs after 10 s, the device would
        // start it again, and so on for ever: both stay. What a device that has rebooted left goes with INITIAL_CONTACT
        // all the same, and otherwise when it gives no sign of life.
        let unique = if tunnel.initiate { "no" } else { "replace" };
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
            .set("unique", unique)
            .section("local-1", end(&ends.gateway_id))
            .section("remote-1", end(&ends.peer_id))
            .section("children", Message::new().section(CHILD, child));
        Self {
            connection: Message::new().section(CONNECTION, connection),
            ends,
            keys: tunnel.keys.clone(),
            initiate: tunnel.initiate,
            ike_proposals: tunnel.ike_proposals.clone(),
            esp_proposals: tunnel.esp_proposals.clone(),
        }
    }

    /// Brings charon to this. An SA of another peer, identity or network is ended, and one of algorithms that are
    /// not to be used any more: it would keep them over all its rekeys. A change of keys ends none.
    pub(super) async fn load(&self, client: &Client) -> Result<(), Error> {
        let is_other = self.differs(client).await?;
        self.load_keys(client).await?;
        client.request("load-conn", self.connection.clone()).await?;
        if is_other || self.has_other_suites(client).await? {
            terminate(client).await?;
        }
        Ok(())
    }

    /// Whether charon has the connection, and for another peer than this.
    async fn differs(&self, client: &Client) -> Result<bool, Error> {
        let loaded = client.stream_request("list-conns", "list-conn", Message::new()).await?;
        let Some(has) = loaded.iter().find_map(|part| part.sub(CONNECTION)) else { return Ok(false) };
        let Some(wants) = self.connection.sub(CONNECTION) else { return Ok(true) };
        let id = |m: &Message, end: &str| m.sub(end).and_then(|e| e.text("id")).map(str::to_owned);
        let selectors = |m: &Message, key: &str| -> Vec<String> {
            let child = m.sub("children").and_then(|c| c.sub(CHILD));
            child.map(|c| c.texts(key).into_iter().map(str::to_owned).collect()).unwrap_or_default()
        };
        let same = has.texts("local_addrs") == wants.texts("local_addrs")
            && has.texts("remote_addrs") == wants.texts("remote_addrs")
            && id(has, "local-1") == id(wants, "local-1")
            && id(has, "remote-1") == id(wants, "remote-1")
            && selectors(has, "local-ts") == selectors(wants, "local_ts")
            && selectors(has, "remote-ts") == selectors(wants, "remote_ts");
        Ok(!same)
    }

    async fn has_other_suites(&self, client: &Client) -> Result<bool, Error> {
        let sas = client.stream_request("list-sas", "list-sa", Message::new()).await?;
        let mut sas = sas.iter().flat_map(Message::sections).map(|(_, sa)| sa);
        Ok(sas.any(|sa| !suite::is_within(sa, &self.ike_proposals, &self.esp_proposals)))
    }

    /// Loads the keys, and unloads those that are no more. Their ids are their places: the oldest is loaded first,
    /// so that no key that stays valid is missing in between.
    async fn load_keys(&self, client: &Client) -> Result<(), Error> {
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

    /// Loads the key at `place`, again if it is there. charon lets a peer prove any of the keys; of them it proves
    /// the one that was loaded last to the peer.
    pub(super) async fn load_key(&self, client: &Client, place: usize) -> Result<(), Error> {
        let Some(key) = self.keys.get(place) else { return Ok(()) };
        let message = Message::new()
            .set("id", format!("key-{place}"))
            .set("type", "IKE")
            .set("data", key.expose())
            .list("owners", [self.ends.gateway_id.as_str(), self.ends.peer_id.as_str()]);
        client.request("load-shared", message).await.map(|_| ())
    }
}

/// Ends every SA. That there is none is no error.
async fn terminate(client: &Client) -> Result<(), Error> {
    let all = Message::new().set("ike", CONNECTION).set("timeout", "-1");
    match client.request("terminate", all).await {
        Ok(_) | Err(Error::Failed { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes charon try to reach the peer once, without waiting for how that goes. It may refuse: while another try is on.
pub(super) async fn initiate(client: &Client) -> Result<(), Error> {
    let child = Message::new().set("ike", CONNECTION).set("child", CHILD).set("timeout", "-1");
    match client.request("initiate", child).await {
        Ok(_) | Err(Error::Failed { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}
