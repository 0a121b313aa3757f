//! `vdpactl echo` as a script sees it. What it answers is for the tests against the kernel.
#![cfg(feature = "cli")]

mod vdpactl;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};
use vdpactl::{command, keys, run};

/// The lines of a run, each an object.
fn objects(stdout: &str) -> Vec<Map<String, Value>> {
    stdout.lines().map(object).collect()
}

fn object(line: &str) -> Map<String, Value> {
    let mut object: Map<String, Value> = serde_json::from_str(line).unwrap();
    assert_eq!(object.remove("schema"), Some(Value::from(1)));
    object
}

#[test]
fn every_event_has_its_keys() {
    let run = run([
        "echo",
        "sim:net,queue_pairs=2,port=null",
        "--pairs",
        "2",
        "--ip",
        "192.0.2.9/24",
        "--ip",
        "fd00::9/64",
        "--json",
        "--seconds",
        "2",
        "--every",
        "0.1",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let objects = objects(&run.stdout);
    let events: Vec<&str> = objects
        .iter()
        .map(|o| o["event"].as_str().unwrap())
        .collect();
    let [first, between @ .., last] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((*first, *last), ("ready", "stopped"));
    assert!(!between.is_empty() && between.iter().all(|event| *event == "statistics"));

    let ready = &objects[0];
    let expected = [
        "addresses",
        "event",
        "mac",
        "mtu",
        "offloads",
        "pairs",
        "port",
        "ring",
        "spec",
    ];
    assert_eq!(keys(ready), expected);
    let addresses = ready["addresses"].as_array().unwrap();
    assert!(addresses.contains(&"192.0.2.9/24".into()) && addresses.contains(&"fd00::9/64".into()));
    assert_eq!((&ready["pairs"], &ready["port"]), (&2.into(), &7.into()));
    let expected = [
        "broken",
        "connections",
        "datagram_bytes",
        "datagrams",
        "device",
        "event",
        "malformed",
        "pairs",
        "received",
        "sent",
        "stream_bytes",
        "wrong_checksums",
    ];
    for totals in &objects[1..] {
        assert_eq!(keys(totals), expected);
        let pairs = totals["pairs"].as_array().unwrap();
        assert_eq!(pairs.len(), 2);
        for counted in [&totals["received"], &pairs[1]["sent"]] {
            let counted = counted.as_object().unwrap();
            assert_eq!(keys(counted), ["bytes", "frames", "large", "partial"]);
        }
    }
}

#[test]
fn people_are_told_who_answers_where() {
    let run = run([
        "echo",
        "sim:net,port=null",
        "--seconds",
        "0.1",
        "--port",
        "9",
        "--ring",
        "packed",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    for words in [
        "192.0.2.2/24",
        "port 9",
        "packed rings, 1 pair, MTU 1500",
        "stopped",
    ] {
        assert!(run.stdout.contains(words), "{words} is not in {run:?}");
    }
}

/// A responder that runs until it is told to end.
struct Running(Child, Lines<BufReader<ChildStdout>>);

impl Running {
    fn start() -> Self {
        let mut child = command(["echo", "sim:net,port=null", "--json", "--every", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self(child, lines);
        assert_eq!(running.line()["event"], "ready");
        running
    }

    fn line(&mut self) -> Map<String, Value> {
        object(&self.1.next().unwrap().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failure; else it has ended.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn a_signal_ends_it_well() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = Running::start();
        let pid = Pid::from_raw(running.0.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        assert_eq!(running.line()["event"], "stopped");
        assert_eq!(running.0.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    run(["echo"]).is_refused_with(&["required"]);
    for bad in ["192.0.2.2", "192.0.2.2/33", "name/24", "", "fd00::1/129"] {
        run(["echo", "sim:net", "--ip", bad]).is_refused_with(&[bad, "192.0.2.2/24"]);
    }
    for bad in [
        "224.0.0.1/4",
        "255.255.255.255/32",
        "0.0.0.0/0",
        "ff02::1/64",
    ] {
        run(["echo", "sim:net", "--ip", bad]).is_refused_with(&[bad, "single host"]);
    }
    let mut many = vec!["echo", "sim:net"];
    many.extend(["--ip", "192.0.2.2/24"].repeat(8));
    run(many).is_refused_with(&["8 addresses", "at most 7"]);
    run(["echo", "sim:net", "--pairs", "2"]).is_refused_with(&["2 queue pairs", "1 to 1"]);
    run(["echo", "sim:net,features=-MQ,queue_pairs=4", "--pairs", "4"])
        .is_refused_with(&["4 queue pairs"]);
    run(["echo", "sim:net,features=-RING_PACKED", "--ring", "packed"])
        .is_refused_with(&["RING_PACKED"]);
    run(["echo", "sim:nat"]).is_refused_with(&["nat"]);
    for (option, bad) in [
        ("--pairs", "0"),
        ("--port", "0"),
        ("--port", "65536"),
        ("--connections", "0"),
        ("--every", "-1"),
        ("--seconds", "0"),
        ("--ring", "round"),
    ] {
        run(["echo", "sim:net", option, bad]).is_refused_with(&[bad]);
    }
}
