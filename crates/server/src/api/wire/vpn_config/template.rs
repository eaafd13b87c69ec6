//! Renders a device's template.
//!
//! A template sees the JSON of the [`VpnConfig`] and these names:
//! - `load_balancer`: the address that hosts of the site connect to;
//! - `site`: the network, netmask, hostmask and prefix length of the peer's traffic selector;
//! - `offer("ike" | "esp", one=, most=)`: an [`Offer`] in the device's names. `one="group"` or `one="hash"` is for a
//!   device that takes one of them only, `most` for one that takes so many proposals;
//! - `left_out(comment, ike_offer, esp_offer)`: a comment on the proposals that are missing, empty if none is;
//! - `object_name(most)`: a name for the device's own objects of at most `most` characters;
//! - `id_type(ipv4=, ipv6=, fqdn=, email=, keyid=, dn=)`: the argument for the type of `peer.id`; a type that is not given is
//!   one that the device does not support;
//! - `gateways`: all of them, the first one being `gateway`; a template that has no place for a second one says so by
//!   `second_gateway(comment)`, which is empty if there is one only;
//! - `strongswan_id`: `peer.id` with its type, as strongSwan writes it;
//! - `refuse_key(rule)` and `refuse_identity(rule)`: the device does not support the tunnel's value.
//!
//! Nothing is escaped by itself. Names, identities and addresses have no character with a meaning in any syntax, except that a
//! distinguished name has spaces, commas and equals signs, and stands in quotes or XML. The pre-shared key has, and passes a filter or a test: `base64`, `hex`, `xml`, `backslashed`, `without(characters, rule)`,
//! `is plain`, `is word`. An undefined name is an error.
//!
//! minijinja's feature `debug` stays off: its errors would show the values of variables, the key among them.

use super::{
    VpnConfig,
    device::{Device, Inexpressible, RenderError},
    offer::{Offer, Translated},
    quote,
};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, Value},
};
use std::error::Error as _;

pub(super) fn render(device: &'static Device, config: &VpnConfig) -> Result<String, RenderError> {
    let names = context! { ..names(device, config), ..Serde(config) };
    let text = environment(device).and_then(|environment| environment.render_str(device.template, names));
    text.map_err(|error| {
        let inexpressible = error.source().and_then(|e| e.downcast_ref::<Inexpressible>()).cloned();
        inexpressible.map_or(RenderError::Template(error), RenderError::Inexpressible)
    })
}

fn environment(device: &'static Device) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?;
    environment.set_syntax(syntax);
    environment.add_filter("base64", |key: &str| quote::base64(key));
    environment.add_filter("hex", |key: &str| quote::hex(key));
    environment.add_filter("xml", |text: &str| quote::xml(text));
    environment.add_filter("backslashed", |text: &str| quote::backslashed(text));
    environment.add_filter("without", move |key: &str, characters: &str, rule: &str| {
        if key.contains(|c| characters.contains(c)) { Err(no_key(device, rule)) } else { Ok(key.to_owned()) }
    });
    environment.add_test("plain", |key: &str| quote::is_plain(key));
    environment.add_test("word", |key: &str| quote::is_word(key));
    environment.add_function("refuse_key", move |rule: &str| Err::<Value, _>(no_key(device, rule)));
    environment.add_function("refuse_identity", move |rule: &str| Err::<Value, _>(no_identity(device, rule)));
    environment.add_function("left_out", left_out);
    Ok(environment)
}

/// The names of templates that depend on the tunnel.
fn names(device: &'static Device, config: &VpnConfig) -> Value {
    let ike: Vec<Translated> = config.ike.proposals.all().iter().map(|p| device.ike(p)).collect();
    let esp: Vec<Translated> = config.esp.proposals.all().iter().map(|p| device.esp(p)).collect();
    let offer = move |phase: &str, limits: Kwargs| {
        let (property, proposals) =
            if phase == "ike" { ("ikeProposals", &ike) } else { ("espProposals", &esp) };
        let most = limits.get::<Option<usize>>("most")?.unwrap_or(usize::MAX);
        let offer = Offer::new(device, property, proposals, limits.get("one")?, most);
        limits.assert_all_used()?;
        offer.map(|offer| Value::from(Serde(offer))).map_err(inexpressible)
    };
    let id_type = config.peer.id_type;
    let id_type = move |words: Kwargs| match words.get::<Option<String>>(id_type)? {
        Some(word) => Ok(word),
        None if !words.has("fqdn") => Err(no_identity(
            device,
            "it identifies itself by its outside address. Make that the peerId, or leave peerId out",
        )),
        None => Err(no_identity(device, &format!("it has no identity of the type {id_type}"))),
    };
    let further: Vec<_> = config.gateways.iter().skip(1).map(|end| end.public_ip.to_string()).collect();
    let named = config.clone();
    let site = config.peer.traffic_selector;
    context! {
        offer => Value::from_function(offer),
        id_type => Value::from_function(id_type),
        object_name => Value::from_function(move |most: usize| named.object(most)),
        second_gateway => Value::from_function(move |comment: &str| second_gateway(comment, &further)),
        load_balancer => config.load_balancer().to_string(),
        strongswan_id => config.strongswan_id.as_str(),
        site => context! {
            network => site.network().to_string(),
            netmask => site.netmask().to_string(),
            hostmask => site.hostmask().to_string(),
            prefix_length => site.prefix_len(),
        },
    }
}

fn second_gateway(comment: &str, further: &[String]) -> String {
    match further.join(", ") {
        further if further.is_empty() => String::new(),
        further => format!(
            "{comment} The tunnel has another gateway, {further}, which this file does not set up: while the first one is down, nothing\n\
             {comment} passes. Make a second tunnel to it with the same key, networks and proposals, and let the device fail over.\n"
        ),
    }
}

fn left_out(comment: &str, ike: &Value, esp: &Value) -> Result<String, Error> {
    let mut text = String::new();
    for (phase, offer) in [("IKE", ike), ("ESP", esp)] {
        let proposals: Vec<_> = offer.get_attr("left_out")?.try_iter()?.map(|p| p.to_string()).collect();
        if !proposals.is_empty() {
            let proposals = proposals.join(", ");
            text += &format!(
                "{comment} {phase} proposals left out, which this device does not support, or not together with the others: {proposals}\n"
            );
        }
    }
    Ok(text)
}

fn no_key(device: &Device, rule: &str) -> Error {
    inexpressible(Inexpressible::Key { device: device.name, rule: rule.to_owned() })
}

fn no_identity(device: &Device, rule: &str) -> Error {
    inexpressible(Inexpressible::Identity { device: device.name, rule: rule.to_owned() })
}

fn inexpressible(why: Inexpressible) -> Error {
    Error::new(ErrorKind::InvalidOperation, "the device does not support the tunnel").with_source(why)
}
