//! Where a reverse proxy is in between: the address that clients reach the API at, and the address of a client.
//!
//! A header of a client that is no trusted proxy is ignored, and so is one with several values that names the API: the proxy has
//! added its own value to one that its client chose. Of the addresses of clients, the last counts that no trusted proxy has.

use axum::http::{HeaderMap, Uri, uri::Authority};
use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// What the operator says about proxies.
#[derive(Debug, Clone, Default)]
pub struct ExternalAddress {
    /// Where clients reach the API. It takes precedence over what proxies say.
    pub url: Option<ExternalUrl>,
    /// Proxies whose `X-Forwarded-Proto`, `-Host`, `-Prefix` and `-For` are used.
    pub trusted_proxies: Vec<TrustedProxy>,
}

/// `https://host:port/prefix`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalUrl(String);

impl FromStr for ExternalUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || "must be http:// or https://, a host, and perhaps a path".to_owned();
        let uri: Uri = text.parse().map_err(|_| rule())?;
        let scheme =
            uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(rule)?;
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(rule)?;
        let path = uri.path().trim_end_matches('/');
        if text.contains(['?', '#']) || !(path.is_empty() || is_path(path)) {
            return Err(rule());
        }
        Ok(Self(format!("{scheme}://{authority}{path}")))
    }
}

/// The addresses of a proxy: a network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>()
            .or_else(|_| one())
            .map(Self)
            .map_err(|_| "must be an address or a network, like 10.0.0.0/24".to_owned())
    }
}

/// The beginning of all links of an answer.
#[derive(Debug, Clone)]
pub(crate) struct LinkBase(pub(crate) String);

impl LinkBase {
    /// `https://host:port`, or nothing where only a prefix is known, and the path, which does not end with a slash.
    pub(crate) fn origin_and_path(&self) -> (&str, &str) {
        let after_scheme = self.0.find("://").map_or(0, |at| at + 3);
        let origin_end = if after_scheme == 0 {
            0
        } else {
            self.0[after_scheme..].find('/').map_or(self.0.len(), |slash| after_scheme + slash)
        };
        self.0.split_at(origin_end)
    }
}

/// The headers by which a trusted proxy names the address.
pub(crate) const FORWARDED: &str = "X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Prefix";

impl ExternalAddress {
    /// Whether answers depend on [`FORWARDED`], so that one for a client does not fit another.
    pub(crate) fn reads_headers(&self) -> bool {
        self.url.is_none() && !self.trusted_proxies.is_empty()
    }

    /// Whether requests from this address are those of a proxy's clients.
    pub(crate) fn is_proxy(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted_proxies.iter().any(|proxy| proxy.0.contains(&client))
    }

    /// The address that a request comes from, which may be that of a proxy's client. `None`: the proxy does not name any.
    ///
    /// Where the walk along the proxies ends without a client, at what is no address or at the beginning, the peer counts.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        if !self.is_proxy(peer) {
            return Some(peer);
        }
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        if lines.is_empty() {
            return None;
        }
        // As bytes: what clients sent is left of what proxies added, and need not be text.
        let elements = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let last = elements.map(address).find(|hop| !hop.is_some_and(|hop| self.is_proxy(hop)));
        Some(last.flatten().unwrap_or(peer))
    }

    pub(crate) fn base(&self, client: Option<IpAddr>, headers: &HeaderMap) -> Option<LinkBase> {
        if let Some(ExternalUrl(url)) = &self.url {
            return Some(LinkBase(url.clone()));
        }
        if !self.is_proxy(client?) {
            return None;
        }
        let only = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?.trim();
            (!value.is_empty() && !value.contains(',')).then_some(value)
        };
        let prefix = only("x-forwarded-prefix").map(|prefix| prefix.trim_end_matches('/'));
        let prefix = prefix.filter(|prefix| is_path(prefix)).unwrap_or_default();
        // An authority has no path: a host cannot add one.
        let host = only("x-forwarded-host").and_then(|host| host.parse::<Authority>().ok());
        let origin = host.zip(only("x-forwarded-proto"));
        let origin = origin.map(|(host, scheme)| format!("{}://{host}", scheme.to_ascii_lowercase()));
        match origin.and_then(|origin| origin.parse::<ExternalUrl>().ok()) {
            Some(ExternalUrl(origin)) => Some(LinkBase(format!("{origin}{prefix}"))),
            None if prefix.is_empty() => None,
            None => Some(LinkBase(prefix.to_owned())),
        }
    }
}

/// An element of `X-Forwarded-For`, to which some proxies add the port.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.parse().or_else(|_| with_port()).ok()
}

/// A path that is not taken for another host's.
fn is_path(prefix: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~%".contains(c);
    prefix.starts_with('/') && !prefix.starts_with("//") && prefix.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_base_has_an_origin_and_a_path() {
        for (base, origin, path) in [
            ("https://a.example:8443/x/y", "https://a.example:8443", "/x/y"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", ""),
            ("/x/y", "", "/x/y"),
        ] {
            assert_eq!(LinkBase(base.to_owned()).origin_and_path(), (origin, path));
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_clients() {
        let external = ExternalAddress { url: None, trusted_proxies: vec!["10.0.0.0/24".parse().unwrap()] };
        for (peer, lines, expected) in [
            ("192.0.2.1", vec!["198.51.100.1"], Some("192.0.2.1")),
            ("10.0.0.7", vec!["198.51.100.1"], Some("198.51.100.1")),
            ("::ffff:10.0.0.7", vec!["2001:db8::1"], Some("2001:db8::1")),
            // The client chose the first. Another proxy is behind it, and a third added a line.
            ("10.0.0.7", vec!["203.0.113.9, 198.51.100.1,10.0.0.8", "10.0.0.9"], Some("198.51.100.1")),
            ("10.0.0.7", vec!["198.51.100.1:4711"], Some("198.51.100.1")),
            ("10.0.0.7", vec!["[2001:db8::1]:4711"], Some("2001:db8::1")),
            // What is not looked at need not be text.
            ("10.0.0.7", vec!["\u{e9}, 198.51.100.1"], Some("198.51.100.1")),
            ("10.0.0.7", vec!["\u{e9}", "198.51.100.1"], Some("198.51.100.1")),
            // What cannot be read ends the walk, and someone is counted.
            ("10.0.0.7", vec!["198.51.100.1, \u{e9}"], Some("10.0.0.7")),
            ("10.0.0.7", vec!["198.51.100.1, unknown, 10.0.0.8"], Some("10.0.0.7")),
            ("10.0.0.7", vec![""], Some("10.0.0.7")),
            ("10.0.0.7", vec!["10.0.0.8"], Some("10.0.0.7")),
            ("10.0.0.7", vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                // As a client sends it: the bytes of UTF-8.
                headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let client = external.client(peer.parse().unwrap(), &headers);
            assert_eq!(client, expected.map(|address| address.parse().unwrap()), "{peer} {lines:?}");
        }
    }

    #[test]
    fn only_trusted_proxies_name_the_base() {
        let headers = |values: &[(&'static str, &'static str)]| {
            values.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let address = |url: Option<&str>, proxy: &str| ExternalAddress {
            url: url.map(|url| url.parse().unwrap()),
            trusted_proxies: vec![proxy.parse().unwrap()],
        };
        let base = |address: &ExternalAddress, values: &[(&'static str, &'static str)]| {
            address.base(Some("::ffff:10.0.0.7".parse().unwrap()), &headers(values)).map(|base| base.0)
        };
        let all = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "api.example:8443"),
            ("x-forwarded-prefix", "/wicketgate/"),
        ];
        let trusted = address(None, "10.0.0.0/24");
        assert_eq!(base(&trusted, &all).as_deref(), Some("https://api.example:8443/wicketgate"));
        assert_eq!(base(&trusted, &all[2..]).as_deref(), Some("/wicketgate"));
        assert_eq!(base(&trusted, &all[..1]), None);
        assert_eq!(base(&address(None, "10.0.1.7"), &all), None, "another address");
        let fixed = address(Some("https://wg.example/api/"), "10.0.1.7");
        assert_eq!(base(&fixed, &all).as_deref(), Some("https://wg.example/api"));
        for bad in ["//evil.example", "evil", "/a b", "/a\"b"] {
            assert_eq!(base(&trusted, &[("x-forwarded-prefix", bad)]), None, "{bad}");
        }
        let of_host =
            |scheme, host| base(&trusted, &[("x-forwarded-proto", scheme), ("x-forwarded-host", host)]);
        assert_eq!(of_host("https", "[2001:db8::1]:8443").as_deref(), Some("https://[2001:db8::1]:8443"));
        for (scheme, host) in [
            ("javascript", "x"),
            ("https, http", "api.example"),
            // Of these, the client chose the first.
            ("https", "evil.example, api.example"),
            ("https", "evil.example/oauth"),
            ("https", "api.example/\", \"x\": \""),
            ("https", "api\"example"),
            ("https", "u@api.example"),
        ] {
            assert_eq!(of_host(scheme, host), None, "{scheme} {host}");
        }
        let mut twice: HeaderMap = headers(&all);
        twice.append("x-forwarded-host", "evil.example".parse().unwrap());
        let client = Some("10.0.0.7".parse().unwrap());
        assert_eq!(trusted.base(client, &twice).map(|base| base.0).as_deref(), Some("/wicketgate"));
        assert!(trusted.reads_headers() && !fixed.reads_headers());
        assert!(!ExternalAddress::default().reads_headers());
        for bad in [
            "api.example",
            "ftp://x",
            "https://",
            "https://u@x",
            "https://x/?a",
            "https://x/#a",
            "https://x/\"a",
        ] {
            assert!(bad.parse::<ExternalUrl>().is_err(), "{bad}");
        }
    }
}
