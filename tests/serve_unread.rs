//! `vdpactl serve` whose output nobody reads.
#![cfg(feature = "cli")]

mod vdpactl;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;

/// More than fit the pipe and what waits for it, whatever comes and goes.
const FRONT_ENDS: u64 = 3000;

#[test]
fn front_ends_that_come_and_go_while_nobody_reads_are_counted_and_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vdpa.sock");
    let mut server = vdpactl::command(["serve", "sim:blk,size=1M", "--json", "--vhost-user"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut next = || -> Option<Value> {
        let line = lines.next()?.unwrap();
        Some(serde_json::from_str(&line).unwrap())
    };
    assert_eq!(next().unwrap()["event"], "listening");
    for _ in 1..FRONT_ENDS {
        drop(UnixStream::connect(&path).unwrap());
    }
    // Whoever came before has been served.
    let last = Frontend::connect(&path, 1).unwrap();
    last.get_features().unwrap();
    drop(last);

    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).unwrap();
    let (mut told, mut missed, mut stopped) = (0, 0, Value::Null);
    while let Some(line) = next() {
        match line["event"].as_str().unwrap() {
            "missed" => missed += line["events"].as_u64().unwrap(),
            "stopped" => stopped = line,
            _ => told += 1,
        }
    }
    assert_eq!(stopped["front_ends"], FRONT_ENDS);
    assert_eq!(stopped["cut_off"], 0);
    // Each was there, and left; the last one may have been let go of.
    assert!(missed > 0 && told > 0, "{missed} {told}");
    assert!((FRONT_ENDS * 2 - 1..=FRONT_ENDS * 2).contains(&(told + missed)));
    assert!(server.wait().unwrap().success());
}
