//! The executable's messages and exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wicketgate-agent"))
        .args(args)
        .env_remove("WICKETGATE_SERVER")
        .env_remove("WICKETGATE_STATE_DIR")
        .env_remove("WICKETGATE_ENROLLMENT_TOKEN")
        .output()
        .unwrap()
}

#[test]
fn help_succeeds_and_lists_the_options() {
    let out = run(&["start", "--help"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0));
    for word in ["--server", "--state-dir", "--allow", "--enrollment-token-file"] {
        assert!(text.contains(word), "the help does not contain {word}:\n{text}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_a_failure_with_1_and_one_message() {
    let code = ["start", "--server", "https://gw:1", "--state-dir", "x", "--enrollment-token", "hello"];
    for args in
        [&["start"][..], &["start", "--server", "http://gw:1", "--state-dir", "x"], &["listen"], &code]
    {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (state, code) = (dir.path().join("state"), dir.path().join("no-code"));
    let (state, code) = (state.to_str().unwrap(), code.to_str().unwrap());
    let out = run(&[
        "start",
        "--server",
        "https://127.0.0.1:1",
        "--state-dir",
        state,
        "--enrollment-token-file",
        code,
    ]);
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8(out.stderr).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("wicketgate-agent: ") && last.contains(code), "{text}");
}

#[test]
fn a_state_directory_with_other_files_is_refused_and_left_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter"), "").unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let out = run(&[
        "start",
        "--server",
        "https://127.0.0.1:1",
        "--enrollment-token-file",
        "no-code",
        "--state-dir",
        dir.path().to_str().unwrap(),
    ]);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("has other files in it: choose another with --state-dir"), "{text}");
    assert_eq!(std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
}
