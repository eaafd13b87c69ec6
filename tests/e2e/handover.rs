//! A site's engineer has a handover link and nothing else: with it the device is configured, its fault is told, and it is seen to connect.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, World,
    targets::{ask, here},
    text,
    user::User,
};

/// What the page does: calls without an account.
struct Page<'a> {
    world: &'a World,
    session: String,
    /// What no answer may tell.
    inside: Vec<String>,
}

impl<'a> Page<'a> {
    fn open(world: &'a World, token: &str, inside: Vec<String>) -> Result<Self> {
        let opened = world.gateway.api.post("/site/open", &json!({"token": token}))?;
        Ok(Self { world, session: text(&opened, "session")?.to_owned(), inside })
    }

    fn call(&self, call: &str, mut body: Value) -> Result<(u16, String)> {
        body["session"] = self.session.as_str().into();
        let reply = self.world.gateway.api.call("POST", &format!("/site/{call}"), Some(&body))?;
        for name in &self.inside {
            ensure!(!reply.body.contains(name.as_str()), "{call} tells {name}: {}", reply.body);
        }
        Ok((reply.status, reply.body))
    }

    fn json(&self, call: &str, body: Value) -> Result<Value> {
        let (status, body) = self.call(call, body)?;
        ensure!(status == 200, "{call}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Looks at the tunnel as the page does, until it is as expected.
    fn sees(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let seen = self.world.lab.until(what, PATIENCE, || {
            last = self.json("tunnel", json!({}))?;
            Ok(wanted(&last).then(|| last.clone()))
        });
        seen.with_context(|| format!("the page last saw {last}"))
    }
}

/// The configuration with another key.
fn with_wrong_key(config: &str) -> Result<String> {
    let begin = config.find("secret = ").context("no secret in the configuration")?;
    let line = config[begin..].lines().next().context("no secret in the configuration")?;
    Ok(config.replace(line, "secret = \"a key of another tunnel, to be sure\""))
}

#[test]
fn a_device_is_set_up_with_a_link_alone_and_its_fault_is_told() -> Result<()> {
    let (world, published) = World::with_sites(1).log("trace").publish(here)?;
    let tunnel = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
    let links = world.gateway.at(&format!("{tunnel}/handover-links"));
    let link = world.gateway.api.post(&links, &json!({"description": "for Acme"}))?;
    let token = text(&link, "token")?;
    let share = world
        .gateway
        .api
        .get(&world.gateway.at(&format!("ipsec-shares/{}", text(&published.share, "id")?)))?;
    let target = text(&share, "target")?.to_owned();
    let inside = vec![target, text(&share, "envZId")?.to_owned(), "agt-".to_owned(), "Acme".to_owned()];
    let page = Page::open(&world, token, inside)?;

    let unheard = page.sees("nothing", |seen| seen["heard"]["stage"] == "NOTHING_RECEIVED")?;
    ensure!(
        unheard["heard"]["lastPacketAt"].is_null() && unheard["shares"][0]["ready"] == false,
        "{unheard}"
    );
    ensure!(unheard["shares"][0]["statusDetail"]["reason"] == "PeerDown", "{unheard}");
    let check = page.json("check", json!({"shareId": published.share["id"]}))?;
    ensure!(check["ok"] == false && check["hops"][1]["state"] == "FAILED", "{check}");

    // The device gets what the page has, and its engineer mistypes the key.
    let (status, config) = page.call("configuration", json!({"format": "strongswan"}))?;
    ensure!(status == 200, "{config}");
    let mut site = world.site(0)?;
    site.start(&world.lab, &with_wrong_key(&config)?)?;
    ensure!(!site.try_connect()?, "a wrong key was accepted");
    let refused = page.sees("refused", |seen| seen["heard"]["stage"] == "REFUSED")?;
    ensure!(refused["connection"]["lastError"]["reason"] == "PreSharedKeysDiffer", "{refused}");
    ensure!(text(&refused["heard"], "advice")?.contains("pre-shared key"), "{refused}");
    ensure!(refused["heard"]["lastPacketAt"].is_string(), "{refused}");

    site.load(&config)?;
    site.try_again()?;
    page.sees("up", |seen| {
        seen["heard"]["stage"] == "UP"
            && seen["connection"]["state"] == "UP"
            && seen["shares"][0]["ready"] == true
            && seen["connection"].get("lastError").is_none()
    })?;
    let check = page.json("check", json!({"shareId": published.share["id"]}))?;
    ensure!(check["ok"] == true, "{check}");
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    let read = format!("executions?action=READ_KEY&actor=handover:{}", text(&link, "id")?);
    let read = world.gateway.api.get(&world.gateway.at(&read))?;
    ensure!(read["totalElements"] == 1, "{read}");
    world.gateway.api.delete(&format!("{links}/{}", text(&link, "id")?))?;
    let (status, over) = page.call("tunnel", json!({}))?;
    ensure!(status == 403 && over.contains("link_invalid"), "{status} {over}");

    // That was the first wrong session of this source. Another try arrives in six seconds.
    let wrong = json!({"token": "wgh_unknown"});
    let tries = (0..20).map(|_| Ok(world.gateway.api.call("POST", "/site/open", Some(&wrong))?.status));
    let statuses = tries.collect::<Result<Vec<_>>>()?;
    ensure!(statuses[..9].iter().all(|status| *status == 403) && statuses.contains(&429), "{statuses:?}");

    let log = fs::read_to_string(world.gateway.process.log())?;
    ensure!(log.contains("/site/configuration"), "the log lacks the calls: the test proves nothing");
    for (what, secret) in [("the link's token", token), ("the session's", page.session.as_str())] {
        ensure!(!log.contains(secret), "{what} is in the log");
    }
    drop(site);
    world.end()
}

#[test]
fn a_link_is_made_with_a_passphrase_listed_and_revoked_at_the_command_line() -> Result<()> {
    let world = World::loopback().start()?;
    world.tunnel(0)?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let make = ["tunnel", "handover", "site-0", "--max-uses", "2", "--passphrase-file", "-"];
    let made = user.run(&make, "correct horse\n")?;
    let (url, words) = (String::from_utf8(made.stdout)?, String::from_utf8(made.stderr)?);
    ensure!(made.status.success() && words.contains("passphrase on another channel"), "{words}");
    let token = url.trim_end().strip_prefix(&format!("{}/site#", world.url())).context(url.clone())?;

    let open = |passphrase: Option<&str>| {
        let body = json!({"token": token, "passphrase": passphrase});
        world.gateway.api.call("POST", "/site/open", Some(&body)).map(|reply| reply.status)
    };
    ensure!(open(None)? == 403 && open(Some("wrong horse"))? == 403 && open(Some("correct horse"))? == 200);
    let listed = user.says("tunnel handover-links site-0")?;
    let id = listed.split('\t').next().context("no id")?.to_owned();
    ensure!(listed.contains("\tACTIVE\t1\t2\t") && !listed.contains("wgh_"), "{listed}");
    user.says(&format!("tunnel revoke-handover site-0 {id}"))?;
    ensure!(user.says("tunnel handover-links site-0")?.contains("\tREVOKED\t"));
    ensure!(open(Some("correct horse"))? == 403);
    world.end()
}
