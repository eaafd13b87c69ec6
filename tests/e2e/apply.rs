//! `apply`: files that say what there should be. A second run changes nothing, and a wrong file changes nothing either.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, AgentOptions};

use crate::harness::{
    PATIENCE, World, agent_executable,
    redacted::redacted,
    targets::{connect, echo, exchange, is_reset},
    text,
    user::User,
};

pub(crate) const TUNNEL: &str = "\
kind: tunnel
name: customer-a
locationId: local
peerPublicIp: 203.0.113.2
peerCidr: 10.0.0.0/16
preSharedKeyFile: keys/customer-a
tags:
  managed-by: git
";

fn share(name: &str, port: u16) -> String {
    format!(
        "---\nkind: share\nname: {name}\nipsecTunnelId: customer-a\nenvZId: app\ntarget: tcp://127.0.0.1:7001\n\
         ingressPort: {port}\nexpiresAt: 2038-01-01T00:00:00+01:00\nallowedSources: [10.0.1.0/24, 10.0.0.0/24]\n\
         tags: {{managed-by: git}}\n"
    )
}

/// A user with an agent in the environment `app`, and a folder with a key.
pub(crate) struct Scene<'a> {
    pub(crate) user: User<'a>,
    pub(crate) folder: std::path::PathBuf,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(world: &'a World) -> Result<Self> {
        let user = User::new(world, "user")?;
        user.sign_in()?;
        let environment = user.json("env list")?;
        user.says(&format!("env update {} --name app", text(&environment[0], "id")?))?;
        let folder = world.lab.dir("files")?;
        fs::create_dir(folder.join("keys"))?;
        let key = folder.join("keys/customer-a");
        fs::write(&key, "a-key-that-is-in-no-plan-0123456789\n")?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        Ok(Self { user, folder })
    }

    /// Exit status, standard output and standard error of `apply` of a file with this text.
    pub(crate) fn apply(&self, text: &str, flags: &str) -> Result<(i32, String, String)> {
        let file = self.folder.join("net.yaml");
        fs::write(&file, text)?;
        let file = file.display().to_string();
        let mut args = vec!["apply", "-f", &file];
        args.extend(flags.split(' ').filter(|flag| !flag.is_empty()));
        let out = self.user.run(&args, "")?;
        let folder = format!("{}/", self.folder.display());
        let shown = |bytes: &[u8]| redacted(&String::from_utf8_lossy(bytes), &[(&folder, "")]);
        let (out, words, status) = (shown(&out.stdout), shown(&out.stderr), out.status.code());
        ensure!(!format!("{out}{words}").contains("a-key-that"), "the key was printed: {out}{words}");
        Ok((status.context("killed")?, out, words))
    }

    /// What one run prints.
    pub(crate) fn shown(&self, text: &str, flags: &str) -> Result<String> {
        let (status, out, words) = self.apply(text, flags)?;
        Ok(format!("{out}\n--- standard error\n{words}\n--- exit status {status}"))
    }
}

#[test]
fn a_file_is_applied_once_and_changed_with_its_consequences_and_pruned() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let both = format!("{TUNNEL}{}{}", share("database", 9000), share("web", 9001));
    insta::assert_snapshot!("plan_of_a_new_file", scene.shown(&both, "--plan")?);
    assert_eq!(scene.user.json("tunnel list")?, json!([]));
    insta::assert_snapshot!("applied", scene.shown(&both, "--yes")?);
    let executions = scene.user.json("execution list")?;

    // Networks have no order.
    let again = both.replace("[10.0.1.0/24, 10.0.0.0/24]", "[10.0.0.0/24, 10.0.1.0/24]");
    assert_ne!(again, both);
    insta::assert_snapshot!("applied_again", scene.shown(&again, "--yes")?);
    insta::assert_snapshot!("plan_of_nothing", scene.shown(&both, "--plan -o json")?);
    assert_eq!(scene.user.json("execution list")?, executions, "a second run wrote");

    let changed = TUNNEL.replace("10.0.0.0/16", "10.0.0.0/15").replace("name:", "initiate: true\nname:")
        + &share("database", 9002).replace("managed-by: git", "managed-by: git, team: null, owner: payments")
        + "enabled: false\n";
    insta::assert_snapshot!("plan_of_changes", scene.shown(&changed, "--plan --prune managed-by=git")?);
    insta::assert_snapshot!("plan_of_changes_as_json", scene.shown(&changed, "--plan -o json")?);
    let (status, _, words) = scene.apply(&changed, "--yes --prune tag.managed-by=git")?;
    ensure!(status == 0, "{words}");
    let left = scene.user.json("share list")?;
    assert_eq!(
        (&left[0]["name"], &left[0]["status"], left.as_array().map(Vec::len)),
        (&json!("database"), &json!("DISABLED"), Some(1))
    );
    assert_eq!(left[0]["tags"], json!({"managed-by": "git", "owner": "payments"}));
    let (status, out, _) = scene.apply(&changed, "--plan --prune managed-by=git")?;
    ensure!(status == 0 && out.contains("2 unchanged"), "{out}");

    // What was read can be applied.
    let read = format!("kind: share\n{}", scene.user.says("share get database -o yaml")?);
    let (status, out, words) = scene.apply(&read, "--plan")?;
    ensure!(status == 0, "{out}{words}");
    // What has the tag goes with an empty file, the share before its tunnel.
    let (status, _, words) = scene.apply("", "--yes --prune managed-by=git")?;
    ensure!(status == 0, "{words}");
    assert_eq!(scene.user.json("tunnel list")?, json!([]));
    world.end()
}

#[test]
fn a_wrong_file_changes_nothing_and_each_fault_has_its_line() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let wrong = TUNNEL.replace("10.0.0.0/16", "10.0.0.0/99").replace("keys/", "none/")
        + "colour: red\n"
        + &share("database", 9000).replace("9000", "\"9000\"")
        + "---\nkind: door\n---\nkind: account\nscopes: [all]\npreSharedKey: x\n";
    insta::assert_snapshot!("faults_of_a_file", scene.shown(&wrong, "--yes")?);
    let dangling = TUNNEL.replace("local", "elsewhere")
        + &share("database", 9000).replace("customer-a", "customer-b").replace("envZId: app", "envZId: none")
        + &share("database", 9001).replace("name: database", "name: web").replace("target", "#")
        + "---\nkind: env\nname: other\n---\nkind: account\nname: deploy\nscopes: [frontdoor.read]\n";
    insta::assert_snapshot!("faults_that_the_server_shows", scene.shown(&dangling, "--yes")?);
    insta::assert_snapshot!("no_yaml", scene.shown("kind: [", "--yes")?);
    insta::assert_snapshot!("twice", scene.shown(&format!("{TUNNEL}---\n{TUNNEL}"), "--yes")?);
    insta::assert_snapshot!("nobody_to_ask", scene.shown(TUNNEL, "")?);
    assert_eq!(scene.user.json("tunnel list")?, json!([]));
    world.end()
}

#[test]
fn null_stands_for_what_the_server_chooses() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let nulls = |schema: &str, kept: &[&str]| -> Result<String> {
        let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json"))?;
        let schema = &document["components"]["schemas"][schema];
        let properties = schema["properties"].as_object().context("no properties")?;
        let is_optional = |name: &&String| {
            let about = &properties[*name];
            let required = schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
            let is_read = about["readOnly"] == true || about["writeOnly"] == true;
            !required && !is_read && !kept.contains(&name.as_str())
        };
        Ok(properties.keys().filter(is_optional).map(|name| format!("{name}: null\n")).collect())
    };
    let tunnel = format!("{TUNNEL}{}", nulls("IpsecTunnelRequest", &["tags"])?);
    let kept = ["tags", "expiresAt", "allowedSources", "envId"];
    let share = format!("{}{}", share("database", 9000), nulls("IpsecShareRequest", &kept)?);
    assert!(tunnel.contains("peerId: null") && share.contains("locationId: null"), "{tunnel}{share}");
    let both = format!("{tunnel}{share}");
    for (flags, unchanged) in [("--yes", 0), ("--plan", 2)] {
        let (status, out, words) = scene.apply(&both, flags)?;
        ensure!(status == 0 && out.contains(&format!("{unchanged} unchanged")), "{out}{words}");
        let note = "loadBalancerIp: null changes nothing, since the server keeps 127.64.0.1: write";
        ensure!(words.contains(note) == (unchanged > 0), "{words}");
    }
    scene.user.says("tunnel update customer-a --peer-id vpn.example.org --wait")?;
    let bare = "kind: tunnel\nname: customer-a\npeerId: null\n";
    let (status, out, _) = scene.apply(bare, "--yes")?;
    ensure!(status == 0 && out.contains("peerId: vpn.example.org → 203.0.113.2"), "{out}");
    assert_eq!(scene.user.json("tunnel get customer-a")?["peerId"], "203.0.113.2");
    let (status, out, _) = scene.apply(bare, "--plan")?;
    ensure!(status == 0 && out.contains("1 unchanged"), "{out}");
    let (status, _, words) = scene.apply("kind: share\nname: database\ntarget: null\n", "--yes")?;
    ensure!(status == 2 && words.contains("a share needs target: it cannot be null"), "{words}");

    for (args, words) in [("execution get ..", "executions/.. is no path"), ("location get .", "is no path")]
    {
        let (status, said) = scene.user.fails(args)?;
        ensure!(status == 1 && said.contains(words), "{args}: {said}");
    }
    let (status, _, words) = scene.apply(&format!("{bare}id: ..\n"), "--yes")?;
    ensure!(status == 1 && words.contains("ipsec-tunnels/.. is no path of the API"), "{words}");
    world.end()
}

#[test]
fn a_fault_for_which_no_wait_helps_ends_the_wait_with_its_cure() -> Result<()> {
    let world = World::loopback().start()?;
    let program = agent_executable()?;
    let options = AgentOptions { allow: &["127.0.0.1:7000"], ..world.agent_options("agent", &program) };
    let (_agent, _) = Agent::enrol(&world.lab, &options, &world.gateway)?;
    let scene = Scene::new(&world)?;
    let begin = Instant::now();
    let (status, _, words) = scene.apply(&format!("{TUNNEL}{}", share("refused", 9000)), "--yes")?;
    // Before the provisioning deadline.
    ensure!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    ensure!(status == 1 && words.contains("share refused is not served (AgentRefused)"), "{status}: {words}");
    ensure!(words.contains("What to do: Add 127.0.0.1:7001 to the agent's allow list"), "{words}");
    world.end()
}

#[test]
fn a_failure_in_the_middle_says_what_was_done_and_a_second_run_goes_on() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    scene.apply(&format!("{TUNNEL}{}", share("first", 9000)), "--yes")?;
    let more = format!("{TUNNEL}{}{}{}", share("a", 9001), share("b", 9000), share("c", 9002));
    insta::assert_snapshot!("failed_in_the_middle", scene.shown(&more, "--yes")?);
    let (status, out, words) = scene.apply(&more.replace("9000", "9003"), "--yes")?;
    ensure!(
        status == 0 && out.contains("2 to create, 0 to update, 0 to replace, 0 to delete, 2 unchanged"),
        "{out}{words}"
    );
    world.end()
}

#[test]
fn a_resource_with_an_id_is_renamed() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    scene.apply(TUNNEL, "--yes")?;
    let tunnel: Value = scene.user.json("tunnel get customer-a")?;
    let renamed =
        TUNNEL.replace("name: customer-a", &format!("id: {}\nname: customer-b", text(&tunnel, "id")?));
    let (status, out, words) = scene.apply(&renamed, "--yes")?;
    ensure!(status == 0 && out.contains("name: customer-a → customer-b"), "{out}{words}");
    let gone = renamed.replace(text(&tunnel, "id")?, "tnl-0190f3a4c0de7000800000000000abcd");
    let (status, _, words) = scene.apply(&gone, "--yes")?;
    ensure!(status == 2 && words.contains("there is no tunnel tnl-"), "{words}");
    world.end()
}

#[test]
fn a_share_moves_to_a_new_tunnel_before_the_old_one_is_deleted() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let first = format!("{TUNNEL}{}", share("database", 9000));
    let (status, _, words) = scene.apply(&first, "--yes")?;
    ensure!(status == 0, "{words}");
    let moved = first.replace("customer-a", "customer-b").replace("keys/customer-b", "keys/customer-a");
    let moved = moved.replace("203.0.113.2", "203.0.113.3");
    insta::assert_snapshot!("moved", scene.shown(&moved, "--yes --prune managed-by=git")?);
    assert_eq!(scene.user.says("tunnel list -o name")?, "customer-b\n");
    let (tunnel, share) = (scene.user.json("tunnel get customer-b")?, scene.user.json("share get database")?);
    assert_eq!((&share["ipsecTunnelId"], &share["status"]), (&tunnel["id"], &json!("DEPLOYED")));
    world.end()
}

#[test]
fn a_resource_that_changed_after_the_plan_is_not_overwritten() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let noted = format!("{TUNNEL}description: first\n");
    scene.apply(&noted, "--yes")?;
    fs::write(scene.folder.join("net.yaml"), noted.replace("first", "second"))?;
    let line = format!("wicketgate apply -f {}/net.yaml; echo status=$?", scene.folder.display());
    let mut terminal = scene.user.on_terminal("screen", &line)?;
    terminal.shows("description: first → second")?;
    terminal.shows("Apply this? [y/N] ")?;
    scene.user.says("tunnel update customer-a --description other --wait")?;
    terminal.types("y\n")?;
    let screen = terminal.ends()?;
    ensure!(
        screen.contains("update tunnel customer-a: it has changed since the plan was made: apply again"),
        "{screen}"
    );
    ensure!(screen.contains("Done: nothing.") && screen.contains("status=1"), "{screen}");
    assert_eq!(scene.user.json("tunnel get customer-a")?["description"], "other");

    // What is no longer tagged while the question is open is not deleted.
    scene.user.says("tunnel update customer-a --tag managed-by=git --wait")?;
    fs::write(scene.folder.join("net.yaml"), "")?;
    let prune = line.replace("apply -f", "apply --prune managed-by=git -f");
    let mut terminal = scene.user.on_terminal("screen", &prune)?;
    terminal.shows("Apply this? [y/N] ")?;
    scene.user.says("tunnel update customer-a --tag managed-by=hand --wait")?;
    terminal.types("y\n")?;
    let screen = terminal.ends()?;
    let refused = "delete tunnel customer-a: it has changed since the plan was made: apply again";
    ensure!(screen.contains(refused) && screen.contains("status=1"), "{screen}");
    assert_eq!(scene.user.json("tunnel get customer-a")?["tags"]["managed-by"], "hand");
    world.end()
}

#[test]
fn an_interrupted_apply_says_what_is_left() -> Result<()> {
    let world = World::loopback().start()?;
    let (mut agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    // Without an agent, the share is not deployed.
    agent.process.kill()?;
    fs::write(scene.folder.join("net.yaml"), format!("{TUNNEL}{}", share("database", 9000)))?;
    let line = format!("wicketgate apply -y -f {}/net.yaml; echo status=$?", scene.folder.display());
    let mut terminal = scene.user.on_terminal("screen", &line)?;
    terminal.shows("database: NEW, waiting for the hosting agent")?;
    terminal.types("\u{3}")?;
    let screen = terminal.ends()?;
    ensure!(screen.contains("interrupted: what the server has accepted goes on there"), "{screen}");
    let done = "Everything was applied: create tunnel customer-a, create share database.";
    ensure!(screen.contains(done) && screen.contains("status=130"), "{screen}");
    world.end()
}

#[test]
fn what_a_plan_says_of_open_connections_of_a_share_is_true() -> Result<()> {
    let (world, published) = World::loopback().publish(echo)?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    user.says(
        "tunnel create other --location local --peer-public-ip 203.0.113.9 --peer-cidr 10.9.0.0/16 --wait",
    )?;
    let file = world.lab.dir("files")?.join("net.yaml");
    let mut open = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut open, b"before")?;
    let name = text(&published.share, "name")?;
    for (change, cuts) in [
        ("target: 127.0.0.1:7999", false),
        ("ingressPort: 9100", false),
        ("allowedSources: [10.0.0.0/24]", false),
        ("ipsecTunnelId: other\nallowedSources: null", false),
        ("enabled: false", true),
    ] {
        fs::write(&file, format!("kind: share\nname: {name}\n{change}\n"))?;
        let path = file.display().to_string();
        let plan = user.run(&["apply", "-f", &path, "--plan", "-o", "json"], "")?;
        let plan: Value = serde_json::from_slice(&plan.stdout)?;
        assert_eq!(plan["steps"][0]["cutsConnections"], cuts, "{change}: {plan}");
        let out = user.run(&["apply", "-f", &path, "--yes"], "")?;
        ensure!(out.status.success(), "{change}: {out:?}");
        if !cuts {
            exchange(&mut open, change.as_bytes()).with_context(|| change.to_owned())?;
        }
    }
    is_reset(open)?;
    world.end()
}
