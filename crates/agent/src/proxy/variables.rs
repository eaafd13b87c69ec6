//! The proxy that the environment names, as curl reads it: `https_proxy` and `all_proxy`, and `no_proxy` with its exceptions,
//! in small letters first, then in capital ones. An empty variable is not set.

use super::{NotAProxy, Password, Proxy, Source, Straight};
use crate::server_address::ServerAddress;
use hyper_util::client::proxy::matcher::Matcher;

/// The proxy for `server`. A fault comes with the name of the variable. `password`: the one that was given beside the URL.
pub(crate) fn from_variables(
    server: &ServerAddress,
    password: Option<Password>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Result<Proxy, Straight>, (&'static str, NotAProxy)> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
    let first = |names: [&'static str; 2]| names.into_iter().find_map(set);
    let urls = first(["https_proxy", "HTTPS_PROXY"]).or_else(|| first(["all_proxy", "ALL_PROXY"]));
    let Some((name, url)) = urls else { return Ok(Err(Straight::NotSet)) };
    if first(["no_proxy", "NO_PROXY"]).is_some_and(|(_, exempted)| is_exempted(server, &exempted)) {
        return Ok(Err(Straight::Exempted));
    }
    Proxy::parse(&url, Source::Environment, password).map(Ok).map_err(|fault| (name, fault))
}

fn is_exempted(server: &ServerAddress, exempted: &str) -> bool {
    // curl separates with blanks, too, and does not look at a dot at the end of a name.
    let list: Vec<_> =
        exempted.split([',', ' ', '\t']).map(|one| one.strip_suffix('.').unwrap_or(one)).collect();
    let any_proxy = "http://proxy.invalid";
    let rules = Matcher::builder().all(any_proxy).no(list.join(",")).build();
    server.to_string().parse().is_ok_and(|server| rules.intercept(&server).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        match from_variables(&server.parse().unwrap(), None, variable) {
            Ok(chosen) => chosen.map(|proxy| proxy.to_string()).map_err(|straight| straight.to_string()),
            Err((name, fault)) => Err(format!("{name}: {fault}")),
        }
    }

    #[test]
    fn small_letters_come_first_and_an_empty_variable_is_not_set() {
        let server = "https://gw.example:8443";
        let proxy = |variables: &[_]| chosen(server, variables);
        assert_eq!(proxy(&[]), Err("no proxy is set".to_owned()));
        assert_eq!(
            proxy(&[("http_proxy", "http://a:1"), ("https_proxy", "")]),
            Err("no proxy is set".to_owned())
        );
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://a:1")]).unwrap(), "http://a:1");
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "b:2")]).unwrap(), "http://b:2");
        assert_eq!(proxy(&[("ALL_PROXY", "socks5://a"), ("https_proxy", "")]).unwrap(), "socks5://a:1080");
        let fault = proxy(&[("HTTPS_PROXY", "http://me:hush@a:x")]).unwrap_err();
        assert!(fault.starts_with("HTTPS_PROXY: must be http://") && !fault.contains("hush"), "{fault}");
    }

    #[test]
    fn exceptions_are_names_with_what_is_below_them_addresses_and_networks() {
        let is_straight = |server: &str, exempted: &str| {
            let variables = [("https_proxy", "a:1"), ("NO_PROXY", exempted)];
            chosen(server, &variables) == Err(Straight::Exempted.to_string())
        };
        for (server, exempted) in [
            ("https://gw.example:8443", "*"),
            ("https://gw.example:8443", "other, EXAMPLE"),
            ("https://gw.example:8443", "other .example."),
            ("https://gw.example:8443", "gw.example"),
            ("https://10.1.2.3:8443", "localhost,10.1.0.0/16"),
            ("https://[fd00::1]:8443", "fd00::/8"),
        ] {
            assert!(is_straight(server, exempted), "{server} {exempted}");
        }
        for (server, exempted) in [
            ("https://gw.example:8443", "w.example,example.gw,10.0.0.0/8"),
            ("https://10.1.2.3:8443", "10.2.0.0/16,10.1.2.33"),
        ] {
            assert!(!is_straight(server, exempted), "{server} {exempted}");
        }
    }
}
