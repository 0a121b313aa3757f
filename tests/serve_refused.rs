//! What `vdpactl serve` refuses before anything is done.
#![cfg(feature = "cli")]

mod vdpactl;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;
use tempfile::TempDir;
use vdpactl::run;

/// A directory of its own, and a path for a socket in it.
fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vdpa.sock");
    (home, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn bad_input_is_refused_and_nothing_is_left_behind() {
    let (home, path) = home();
    let file = home.path().join("file");
    fs::write(&file, "precious").unwrap();
    let taken = home.path().join("taken.sock");
    let listener = UnixListener::bind(&taken).unwrap();
    let long = home.path().join("x".repeat(108));
    let nowhere = home.path().join("nowhere/vdpa.sock");
    let beneath = file.join("vdpa.sock");
    let twice = home.path().join("./vdpa.sock");
    let [at, file_at, taken, long, nowhere, beneath, twice] =
        [&path, &file, &taken, &long, &nowhere, &beneath, &twice].map(|path| text(path));
    let bytes = format!("{} bytes", long.len());
    let flag = "--vhost-user";
    for (line, words) in [
        (&["sim:blk"][..], &["required"][..]),
        (
            &["sim:blk", "sim:blk", flag, at],
            &["2 devices", "1 --vhost-user"],
        ),
        (&["sim:blk", flag, taken], &[taken, "in use"]),
        (
            &["sim:blk", flag, file_at],
            &[file_at, "regular file", "not a socket"],
        ),
        (
            &["sim:blk", flag, text(home.path())],
            &["directory", "not a socket"],
        ),
        (&["sim:blk", flag, long], &[long, &bytes, "107"]),
        (
            &["sim:blk", flag, nowhere],
            &[nowhere, "no directory", "mkdir"],
        ),
        (&["sim:blk", flag, beneath], &[beneath, "not a directory"]),
        (&["sim:blk", flag, ""], &["value is required"]),
        (
            &["sim:blk", flag, at, "sim:rng", flag, twice],
            &[twice, "twice", "sim:blk", "sim:rng"],
        ),
        (
            &["sim:blk", flag, at, "sim:rng", flag, file_at],
            &[file_at, "not a socket"],
        ),
        (
            &["sim:blk", flag, at, "sim:nat", flag, taken],
            &[taken, "in use"],
        ),
        (&["sim:nat", flag, at], &["nat"]),
        (
            &["sim:blk,file=/no/such/image", flag, at],
            &["/no/such/image"],
        ),
        (
            &["sim:blk", "--client", flag, file_at],
            &[file_at, "not a socket"],
        ),
        (
            &["sim:blk", "--client", flag, nowhere],
            &[nowhere, "no directory"],
        ),
        (&["sim:blk", "--client", flag, long], &[&bytes]),
        (
            &["sim:blk", "--client", flag, at, "--mode", "600"],
            &["--client", "--mode"],
        ),
        (&["sim:blk", flag, at, "--mode", "888"], &["888", "octal"]),
        (&["sim:blk", flag, at, "--mode", "1777"], &["1777", "octal"]),
        (
            &["sim:blk", flag, at, "--owner", "who.ever"],
            &["--owner", "who.ever"],
        ),
        (
            &["sim:blk", flag, at, "--owner", ":who.ever"],
            &["--owner", "group", "who.ever"],
        ),
        (
            &["sim:blk", flag, "fd:front", "--mode", "600"],
            &["--mode", "fd:", "SocketMode="],
        ),
        (
            &["sim:blk", flag, "fd:front", "--owner", "0"],
            &["--owner", "fd:", "SocketUser="],
        ),
        (&["sim:blk", flag, at, "--stats", "-1"], &["-1"]),
    ] {
        for json in [&[][..], &["--json"]] {
            run(["serve"].iter().chain(line).chain(json)).is_refused_with(words);
            assert!(!path.exists(), "{line:?}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // Who listens there has not been disturbed.
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn a_directory_that_may_not_be_written_to_is_refused() {
    if !Uid::effective().is_root() {
        println!(
            "SKIP serve_refused::a_directory_that_may_not_be_written_to_is_refused: not root: nobody to become"
        );
        return;
    }
    let (home, path) = home();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // As nobody, and from where nobody can read it.
    let program = home.path().join("vdpactl");
    // By a process of its own: a file that this one writes to may be open in a child of another test, and then nobody runs it.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_vdpactl"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let as_nobody = |line: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program).args(line).stdin(Stdio::null());
        vdpactl::ended(&mut command)
    };
    as_nobody(&["serve", "sim:blk", "--vhost-user", text(&path)]).is_refused_with(&[
        text(&path),
        "user 65534",
        text(home.path()),
    ]);
    let _others = UnixListener::bind(&path).unwrap();
    as_nobody(&["serve", "sim:blk", "--vhost-user", text(&path)])
        .is_refused_with(&[text(&path), "permission"]);
    // A front end that does not let it in is not waited for.
    as_nobody(&["serve", "sim:blk", "--client", "--vhost-user", text(&path)]).is_refused_with(&[
        text(&path),
        "user 65534 may not connect",
        "chmod",
    ]);
}
