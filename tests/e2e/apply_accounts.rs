//! API accounts in `apply`: their secrets go to files, and are not lost.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Result, ensure};
use serde_json::json;

use super::apply::{Scene, TUNNEL};
use crate::harness::{PATIENCE, World, held_back::hold_back, text, user::User};

const ACCOUNT: &str =
    "kind: account\nname: deploy\nscopes: [frontdoor.read]\nclientSecretFile: keys/deploy\n";
/// How the request for an account begins.
const CREATION: &str = "POST /frontdoor/v2/api-accounts ";

#[test]
fn the_secret_of_an_account_goes_to_its_file_only() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let account = ACCOUNT;
    let signs_in = || -> Result<bool> {
        let file = scene.folder.join("keys/deploy");
        assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
        let accounts = scene.user.json("account list")?;
        let id = text(&accounts[0], "clientId")?;
        let file = file.display().to_string();
        let args =
            ["login", "--server", &world.url(), "--account", id, "--secret-file", &file, "--name", "deploy"];
        Ok(scene.user.run(&args, "")?.status.success())
    };
    let (status, out, words) = scene.apply(account, "--yes")?;
    let secret = fs::read_to_string(scene.folder.join("keys/deploy"))?;
    ensure!(status == 0 && !format!("{out}{words}").contains(secret.trim()), "{status}: {words}");
    ensure!(signs_in()?, "the secret is wrong");
    scene.user.sign_in()?;
    assert_eq!(scene.apply(account, "--plan")?.0, 0);
    let more = account.replace("frontdoor.read", "frontdoor.write, frontdoor.read");
    insta::assert_snapshot!("plan_of_a_replacement", scene.shown(&more, "--plan")?);
    assert_eq!(scene.apply(&more, "--yes")?.0, 0);
    ensure!(fs::read_to_string(scene.folder.join("keys/deploy"))? != secret, "the secret is the old one");
    ensure!(signs_in()?, "the new secret is wrong");
    scene.user.sign_in()?;
    fs::remove_file(scene.folder.join("keys/deploy"))?;
    let (status, _, words) = scene.apply(&more, "--plan")?;
    let note = "run `wicketgate account delete deploy` and apply again for a new one";
    ensure!(status == 0 && words.contains(note), "{status}: {words}");
    world.end()
}

#[test]
fn an_account_whose_secret_cannot_be_written_is_not_created() -> Result<()> {
    let world = World::loopback().start()?;
    let scene = Scene { user: User::new(&world, "user")?, folder: world.lab.dir("files")? };
    scene.user.sign_in()?;
    // The folder of the first does not exist, and the second is a folder.
    let there = ACCOUNT.replace("keys/", "");
    for account in [ACCOUNT, &there.replace("File: deploy", "File: ../files")] {
        let shown = scene.shown(&format!("{TUNNEL}---\n{account}").replace("preSh", "#"), "--yes")?;
        ensure!(shown.contains("Nothing was changed."), "{shown}");
        ensure!(shown.contains("clientSecretFile: ") && shown.contains(" cannot be written: "), "{shown}");
        assert_eq!(
            (scene.user.json("account list")?, scene.user.json("tunnel list")?),
            (json!([]), json!([]))
        );
    }
    for same in ["deploy", "./deploy", "../files/deploy"] {
        let second =
            there.replace("File: deploy", &format!("File: {same}")).replace("name: deploy", "name: b");
        let (_, _, words) = scene.apply(&format!("{there}---\n{second}"), "--yes")?;
        ensure!(words.contains("clientSecretFile is that of account deploy too"), "{same}: {words}");
    }

    // Its folder goes while the account is created.
    fs::create_dir(scene.folder.join("keys"))?;
    let on: SocketAddr = ([127, 0, 0, 1], 9999).into();
    let creation = hold_back(&world, on, CREATION)?;
    let line = line_over(&scene, on, ACCOUNT)?;
    let terminal = scene.user.on_terminal("lost", &line)?;
    let answer = creation.recv_timeout(PATIENCE)?;
    fs::remove_dir_all(scene.folder.join("keys"))?;
    drop(answer);
    let screen = terminal.ends()?;
    let id = scene.user.json("account list")?;
    let cure = format!("run `wicketgate account delete {}`, and apply again", text(&id[0], "clientId")?);
    ensure!(screen.contains(&cure) && screen.contains("status=1"), "{screen}");
    world.end()
}

#[test]
fn an_interruption_does_not_lose_the_secret_of_an_account() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let on: SocketAddr = ([127, 0, 0, 1], 9999).into();
    let creation = hold_back(&world, on, CREATION)?;
    let line = line_over(&scene, on, &format!("{ACCOUNT}---\n{}", ACCOUNT.replace("deploy", "later")))?;
    let mut terminal = scene.user.on_terminal("screen", &line)?;
    let answer = creation.recv_timeout(PATIENCE)?;
    terminal.types("\u{3}")?;
    terminal.shows("interrupted: the present step is completed first")?;
    drop(answer);
    let screen = terminal.ends()?;
    ensure!(screen.contains("status=130"), "{screen}");
    ensure!(screen.contains("Done: create account deploy.\r\nNot done: create account later."), "{screen}");
    assert!(!scene.folder.join("keys/later").exists(), "the second step was taken");
    let file = scene.folder.join("keys/deploy");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let (accounts, file) = (scene.user.json("account list")?, file.display().to_string());
    let id = text(&accounts[0], "clientId")?;
    scene
        .user
        .says(&format!("login --server {} --account {id} --secret-file {file} --name deploy", world.url()))?;

    // An answer that is lost leaves an account whose secret nobody has.
    scene.user.sign_in()?;
    let on: SocketAddr = ([127, 0, 0, 1], 9998).into();
    let creation = hold_back(&world, on, CREATION)?;
    let line = line_over(&scene, on, &ACCOUNT.replace("deploy", "lost"))?;
    let terminal = scene.user.on_terminal("lost", &line)?;
    creation.recv_timeout(PATIENCE)?.lose()?;
    let screen = terminal.ends()?;
    ensure!(screen.contains("delete it with `wicketgate account delete lost`"), "{screen}");
    ensure!(!scene.folder.join("keys/lost").exists(), "a secret from nowhere");
    world.end()
}

#[test]
fn an_interruption_does_not_lose_the_secret_that_create_prints_or_writes() -> Result<()> {
    let world = World::loopback().start()?;
    let scene = Scene { user: User::new(&world, "user")?, folder: world.lab.dir("files")? };
    scene.user.sign_in()?;
    let file = scene.folder.join("deploy");
    for (port, flags) in [(9999, String::new()), (9998, format!("--client-secret-file {}", file.display()))] {
        let on: SocketAddr = ([127, 0, 0, 1], port).into();
        let creation = hold_back(&world, on, CREATION)?;
        let create = format!("account create deploy --scope frontdoor.read {flags}");
        let mut terminal = scene.user.on_terminal("screen", &over(&scene, on, &create))?;
        let answer = creation.recv_timeout(PATIENCE)?;
        terminal.types("\u{3}")?;
        terminal.shows("interrupted: the present step is completed first")?;
        drop(answer);
        let screen = terminal.ends()?;
        let secret = fs::read_to_string(&file).unwrap_or_default();
        let is_printed = screen.contains("clientSecret:");
        ensure!(is_printed == flags.is_empty() && (is_printed || !secret.is_empty()), "{screen}");
        ensure!(secret.is_empty() || !screen.contains(secret.trim()), "the secret is printed too: {screen}");
        scene.user.says("account delete deploy")?;
    }
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let nowhere = "account create b --scope frontdoor.read --client-secret-file /nonexistent/b";
    let (status, words) = scene.user.fails(nowhere)?;
    ensure!(status == 1 && words.contains("Nothing was changed."), "{status}: {words}");
    assert_eq!(scene.user.json("account list")?, json!([]));
    world.end()
}

#[test]
fn a_terminal_that_is_closed_does_not_interrupt_what_nohup_has_started() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    let scene = Scene::new(&world)?;
    let on: SocketAddr = ([127, 0, 0, 1], 9999).into();
    let creation = hold_back(&world, on, CREATION)?;
    let line = line_over(&scene, on, &format!("{ACCOUNT}---\n{}", ACCOUNT.replace("deploy", "later")))?;
    let id = scene.folder.join("id");
    let line = line.replace("; echo", "'; echo");
    let line = format!("trap '' HUP; sh -c 'echo $$ > {}; exec {line}", id.display());
    let terminal = scene.user.on_terminal("screen", &line)?;
    let answer = creation.recv_timeout(PATIENCE)?;
    let id = fs::read_to_string(id)?;
    ensure!(Command::new("kill").args(["-HUP", id.trim()]).status()?.success(), "no signal");
    drop(answer);
    drop(creation);
    let screen = terminal.ends()?;
    ensure!(screen.contains("status=0") && !screen.contains("interrupted"), "{screen}");
    world.end()
}

/// The line of a shell that applies a file with this text over another way to the API.
fn line_over(scene: &Scene<'_>, on: SocketAddr, text: &str) -> Result<String> {
    let file = scene.folder.join("net.yaml");
    fs::write(&file, text)?;
    Ok(over(scene, on, &format!("apply -y -f {}", file.display())))
}

/// The line of a shell for a command over another way to the API.
fn over(scene: &Scene<'_>, on: SocketAddr, command: &str) -> String {
    let token = scene.user.world.gateway.data.join("admin.token");
    format!("wicketgate {command} --server http://{on} --token-file {}; echo status=$?", token.display())
}
