//! The executable's messages and exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::Permissions,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};
use uuid::Uuid;
use wicketgate_model::EnrollmentId;
use wicketgate_transport::{code::EnrolmentCode, trust::Fingerprint};

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
    // Another start would not find one either.
    assert_eq!(out.status.code(), Some(2));
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

#[test]
fn a_code_is_read_from_standard_input_and_kept_in_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credstore/code");
    let enroll = |text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wicketgate-agent"));
        command.args(["enroll", "--file"]).arg(&file).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let wrong = enroll("ENR-0123\n");
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(said.contains("is incomplete") && !said.contains("0123") && !file.exists(), "{said}");
    let code = EnrolmentCode::generate(EnrollmentId::new(Uuid::nil()), Fingerprint::of(b"ca")).unwrap();
    let saved = enroll(&format!("{}\n", *code.expose()));
    let said = String::from_utf8(saved.stdout).unwrap();
    assert!(said.contains("saved") && !said.contains("ENR-"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), *code.expose());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}
