//! The command line on a terminal: tables with colours, the live line, questions, and interruption. And what it prints into
//! pipes, each table and each error.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{World, redacted::redacted, targets::echo, text, user::User};

/// Commands that read, with each form of output.
const READS: &[&str] = &[
    "frontdoor list",
    "tunnel list",
    "tunnel list -o wide",
    "tunnel list -o name",
    "tunnel get TUNNEL",
    "tunnel history TUNNEL",
    "share list",
    "share list -o wide",
    "share list -o name",
    "share list --json name,ready,tags.team",
    "share get SHARE",
    "share get SHARE -o yaml",
    "share check SHARE",
    "env list",
    "env list -o json",
    "agent list",
    "account list",
    "location list",
    "execution list --limit 2",
    "execution list action=CREATE resourceType=ipsec-share",
    "execution list -o wide action=CREATE resourceType=ipsec-tunnel",
    "status",
];

/// Commands that fail.
const ERRORS: &[&str] = &[
    "share get nothing",
    "share list colour=red",
    "share list status",
    "share list --json colour",
    "share list --jq .[",
    "share list --jq .[0].name.first",
    "share list --context elsewhere",
    "share create web",
    "share create web --tunnel nothing --env none --target x --ingress-port 1",
    "share update SHARE",
    "share update SHARE --ingress-port 70000",
    "share update SHARE --unset colour",
    "share update SHARE --tag team",
    "share update SHARE -f /nonexistent",
    "tunnel delete TUNNEL",
    "tunnel reset TUNNEL --scope ike --mode rekey",
    "tunnel reset TUNNEL",
    "tunnel ike-log TUNNEL",
    "tunnel config TUNNEL --format strongswan",
    "tunnel create a_b --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.1/16",
    "context use elsewhere",
    "context set",
    "login --server http://203.0.113.9 --token-file /dev/null",
    "logout elsewhere",
    "apply -f /nonexistent --yes",
    "apply -f /dev/null --yes --prune tag",
];

/// A world with a tunnel, a share and an agent, and the names of what is random in it.
fn scene<T>(
    run: impl FnOnce(&World, &User<'_>, &dyn Fn(&str) -> String, &dyn Fn(&str) -> String) -> Result<T>,
) -> Result<T> {
    let (world, published) = World::loopback().publish(echo)?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let environment = user.json("env list")?;
    let (zid, name) = (text(&environment[0], "zId")?.to_owned(), text(&environment[0], "name")?.to_owned());
    let (tunnel, share) =
        (text(&published.tunnel, "name")?.to_owned(), text(&published.share, "name")?.to_owned());
    let named = |command: &str| command.replace("TUNNEL", &tunnel).replace("SHARE", &share);
    let shown = |text: &str| redacted(text, &[(&name, "ENVIRONMENT"), (&zid, "ZID")]);
    let result = run(&world, &user, &named, &shown)?;
    world.end()?;
    Ok(result)
}

#[test]
fn each_table_and_each_error_is_as_it_was() -> Result<()> {
    scene(|_, user, named, shown| {
        for (name, commands) in [("tables", READS), ("errors", ERRORS)] {
            let mut all = String::new();
            for command in commands {
                let out = user.run(&named(command).split(' ').collect::<Vec<_>>(), "")?;
                let status = out.status.code().context("killed")?;
                ensure!((status == 0) == (name == "tables"), "{command}: {status}: {out:?}");
                let (out, words) = (String::from_utf8(out.stdout)?, String::from_utf8(out.stderr)?);
                all.push_str(&format!("$ {command}\n{}{}\n[{status}]\n\n", shown(&out), shown(&words)));
            }
            insta::assert_snapshot!(name, all);
        }
        Ok(())
    })
}

#[test]
fn a_terminal_gets_headings_colours_and_the_next_command() -> Result<()> {
    scene(|_, user, named, shown| {
        let lines = named(
            "wicketgate tunnel list; wicketgate share list; wicketgate share check SHARE; wicketgate share update SHARE --tag a=b; NO_COLOR=1 wicketgate share list",
        );
        let screen = user.on_terminal("tables", &lines)?.ends()?;
        let plain = screen.replace('\u{1b}', "^[");
        // The live line is replaced while it lasts: how often depends on the machine.
        let kept: Vec<_> = plain.lines().map(|line| line.rsplit("\r^[[K").next().unwrap_or(line)).collect();
        insta::assert_snapshot!("on_a_terminal", shown(&kept.join("\n")));
        Ok(())
    })
}

#[test]
fn the_live_line_names_the_hop_and_an_interruption_leaves_the_work_to_the_server() -> Result<()> {
    let world = World::loopback().start()?;
    let (mut agent, _) = world.agent("agent")?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let environment = user.json("env list")?;
    let environment = text(&environment[0], "name")?;
    agent.process.kill()?;
    user.says(
        "tunnel create site --location local --peer-public-ip 203.0.113.2 --peer-cidr 10.0.0.0/16 --wait",
    )?;
    let create = format!(
        "wicketgate share create web --tunnel site --env {environment} --target 127.0.0.1:7001 --ingress-port 9000"
    );
    let mut terminal = user.on_terminal("live", &format!("stty -g\n{create}\necho status=$?\nstty -g"))?;
    // At whatever second: a busy gateway reports later.
    terminal.shows(" s: no agent of the environment is connected")?;
    terminal.shows("web: NEW, waiting for the hosting agent, ")?;
    terminal.types("\u{3}")?;
    let screen = terminal.ends()?.replace('\r', "");
    ensure!(screen.contains("\nstatus=130\n"), "{screen}");
    ensure!(
        screen.contains("\u{1b}[Kwicketgate: interrupted: what the server has accepted goes on there\n"),
        "{screen:?}"
    );
    let settings: Vec<_> = screen
        .lines()
        .map(|l| l.rsplit("\u{1b}[K").next().unwrap_or(l))
        .filter(|l| l.matches(':').count() > 10)
        .collect();
    ensure!(settings.len() == 2 && settings[0] == settings[1], "the terminal is another: {screen:?}");
    ensure!(user.says("share list -o name")? == "web\n", "the share is gone");
    world.end()
}

#[test]
fn apply_asks_on_a_terminal() -> Result<()> {
    let world = World::loopback().start()?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let file = world.lab.dir("files")?.join("net.yaml");
    fs::write(
        &file,
        "kind: tunnel\nname: site\nlocationId: local\npeerPublicIp: 203.0.113.2\npeerCidr: 10.0.0.0/16\n",
    )?;
    let apply = format!("wicketgate apply -f {}\necho status=$?", file.display());
    for (key, name, status, words) in [("n\n", "no", 1, "nothing was changed"), ("y\n", "yes", 0, "Applied.")]
    {
        let mut terminal = user.on_terminal(name, &apply)?;
        terminal.shows("Apply this? [y/N] ")?;
        assert_eq!(user.says("tunnel list -o name")?, "", "it did not wait for the answer");
        terminal.types(key)?;
        let screen = terminal.ends()?;
        ensure!(screen.contains(words) && screen.contains(&format!("status={status}")), "{screen}");
    }
    assert_eq!(user.says("tunnel list -o name")?, "site\n");
    world.end()
}
