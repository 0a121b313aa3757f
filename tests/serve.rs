//! `vdpactl serve` as scripts and front ends have it. The front ends are strangers: the `virtio-driver` crate drives disks,
//! and rust-vmm's `vhost` says what no driver should.
#![cfg(feature = "cli")]

mod serving;
mod vdpactl;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::Value;
use serving::{Disk, Served, Shared};
use tempfile::TempDir;
use vdpactl::{command, keys, run};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

/// A directory of its own, and a path for a socket in it.
fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("vdpa.sock");
    (home, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A front end that has said hello.
fn hello(path: &Path) -> Frontend {
    let front_end = Frontend::connect(path, 1).unwrap();
    greet(front_end)
}

fn greet(mut front_end: Frontend) -> Frontend {
    front_end.set_owner().unwrap();
    let offered = front_end.get_features().unwrap();
    // Without STATUS, which it cannot say: rings start as soon as they are complete.
    let protocol = front_end.get_protocol_features().unwrap() - VhostUserProtocolFeatures::STATUS;
    front_end.set_protocol_features(protocol).unwrap();
    // VERSION_1, and vhost-user's own.
    let wanted = 1 << 32 | 1 << 30;
    assert_eq!(offered & wanted, wanted);
    front_end.set_features(wanted).unwrap();
    front_end
}

// --- events ------------------------------------------------------------------------------------------------------

#[test]
fn every_event_has_its_keys() {
    let (_home, path) = home();
    let spec = "sim:blk,size=1M";
    let served = Served::start([spec, "--vhost-user", text(&path), "--stats", "0.05"]);
    let listening = served.expect("listening");
    let offer = ["event", "max_size", "path", "queues", "spec", "type"];
    assert_eq!(keys(&listening), offer);
    assert_eq!(
        (&listening["path"], &listening["spec"]),
        (&text(&path).into(), &spec.into())
    );
    assert_eq!(
        (&listening["type"], &listening["queues"]),
        (&"block".into(), &1.into())
    );

    let mut disk = Disk::attach(&path, false);
    let connected = served.expect("connected");
    assert_eq!(keys(&connected), ["event", "path", "pid", "spec", "uid"]);
    assert_eq!(connected["pid"], process::id());
    assert_eq!(connected["uid"], Uid::effective().as_raw());
    let running = loop {
        let (next, statistics) = served.either("running", "statistics");
        if !statistics {
            break next;
        }
    };
    assert_eq!(
        keys(&running),
        ["event", "features", "path", "queues", "ring", "spec"]
    );
    assert_eq!(
        (&running["ring"], &running["queues"]),
        (&"split".into(), &1.into())
    );
    assert!(
        running["features"]
            .as_array()
            .unwrap()
            .contains(&"VERSION_1".into())
    );

    disk.write(3, &[0x5a; 512]);
    assert_eq!(disk.read(3), [0x5a; 512]);
    let statistics = loop {
        let statistics = served.expect("statistics");
        if statistics["counters"]["queue0.requests.read"] == 1 {
            break statistics;
        }
    };
    let expected = ["counters", "event", "path", "per_second", "spec"];
    assert_eq!(keys(&statistics), expected);
    let rates = statistics["per_second"].as_object().unwrap();
    assert_eq!(keys(rates), ["read_bytes", "requests", "written_bytes"]);

    drop(disk);
    while served.either("disconnected", "statistics").1 {}
    served.signal(Signal::SIGTERM);
    let stopped = served.expect("stopped");
    let expected = [
        "by",
        "cut_off",
        "event",
        "front_ends",
        "path",
        "spec",
        "why",
    ];
    assert_eq!(keys(&stopped), expected);
    assert_eq!(
        (&stopped["by"], &stopped["why"]),
        (&"signal".into(), &Value::Null)
    );
    assert_eq!(
        (&stopped["front_ends"], &stopped["cut_off"]),
        (&1.into(), &0.into())
    );
    assert_eq!(served.ended(), Some(0));
}

#[test]
fn people_are_told_the_same_in_words() {
    let (_home, path) = home();
    let args = ["serve", "sim:blk", "--vhost-user", text(&path)];
    let mut child = command(args).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut said = String::new();
    while !said.contains("listening") {
        let mut some = [0; 256];
        let got = out.read(&mut some).unwrap();
        assert_ne!(got, 0, "{said}");
        said += std::str::from_utf8(&some[..got]).unwrap();
    }
    drop(hello(&path));
    while !said.contains("disconnected") {
        let mut some = [0; 256];
        let got = out.read(&mut some).unwrap();
        assert_ne!(got, 0, "{said}");
        said += std::str::from_utf8(&some[..got]).unwrap();
    }
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
    out.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!said.contains(['{', '\u{1b}']), "{said}");
    let user = format!("user {}", Uid::effective());
    for words in [
        text(&path),
        "1 queue",
        &user,
        "1 front end served, 0 cut off",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
}

// --- front ends --------------------------------------------------------------------------------------------------

#[test]
fn two_devices_are_served_by_one_process() {
    let (home, first) = home();
    let second = home.path().join("second.sock");
    let served = Served::start([
        "sim:blk,size=1M",
        "--vhost-user",
        text(&first),
        "sim:blk,size=2M",
        "--vhost-user",
        text(&second),
    ]);
    for path in [&first, &second] {
        assert_eq!(served.expect("listening")["path"], text(path));
    }
    // Both at once, each in its ring format.
    let mut disks = [Disk::attach(&first, false), Disk::attach(&second, true)];
    assert_eq!(disks.each_ref().map(Disk::capacity), [2048, 4096]);
    for (fill, disk) in (1..).zip(&mut disks) {
        disk.write(0, &[fill; 512]);
    }
    for (fill, disk) in (1..).zip(&mut disks) {
        assert_eq!(disk.read(0), [fill; 512]);
    }
    let mut rings: Vec<Value> = Vec::new();
    for _ in 0..2 {
        served.either("connected", "running");
        let (event, _) = served.either("running", "connected");
        rings.extend(event.get("ring").cloned());
    }
    drop(disks);
    for _ in 0..2 {
        served.expect("disconnected");
    }
    served.stop(2);
}

#[test]
fn a_wire_joins_two_devices_of_one_process() {
    let (home, first) = home();
    let second = home.path().join("second.sock");
    let spec = "sim:net,port=wire:lab";
    let both = |third: &'static [&'static str]| {
        let both = [
            spec,
            "--vhost-user",
            text(&first),
            spec,
            "--vhost-user",
            text(&second),
        ];
        both.into_iter().chain(third.iter().copied())
    };
    let served = Served::start(both(&[]));
    for _ in 0..2 {
        served.expect("listening");
    }
    served.stop(2);
    // A third end finds it taken by the other two: they are of one registry.
    let third = home.path().join("third.sock");
    let refused =
        run(["serve"]
            .into_iter()
            .chain(both(&[]))
            .chain([spec, "--vhost-user", text(&third)]));
    refused.is_refused_with(&["lab"]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn who_misbehaves_is_cut_off_and_the_next_one_is_served() {
    let (_home, path) = home();
    let served = Served::start(["sim:blk", "--vhost-user", text(&path)]);
    served.expect("listening");

    // A region that is longer than its file.
    let front_end = hello(&path);
    served.expect("connected");
    let memory = Shared::new(4096);
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: 1 << 20,
        userspace_addr: memory.address(),
        mmap_offset: 0,
        mmap_handle: memory.file.as_raw_fd(),
    };
    // With or without an answer, it has no future.
    let _refused = front_end.set_mem_table(&[region]);
    let why = served.expect("cut_off")["why"].as_str().unwrap().to_owned();
    for words in ["SET_MEM_TABLE", "0x100000", "0x1000:"] {
        assert!(why.contains(words), "{words} is not in {why}");
    }
    assert!(!why.contains('\n'));

    // No memory at all: what is not shared has no region.
    let mut front_end = hello(&path);
    served.expect("connected");
    let ring = VringConfigData {
        queue_max_size: 64,
        queue_size: 64,
        flags: 0,
        desc_table_addr: memory.address(),
        used_ring_addr: memory.address() + 2048,
        avail_ring_addr: memory.address() + 1024,
        log_addr: None,
    };
    let _answer = front_end.set_vring_num(0, 64);
    let _answer = front_end.set_vring_addr(0, &ring);
    let _answer = front_end.set_vring_base(0, 0);
    let call = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    let _answer = front_end.set_vring_call(0, &call);
    let _answer = front_end.set_vring_kick(0, &call);
    let _answer = front_end.set_vring_enable(0, true);
    let why = served.expect("cut_off")["why"].as_str().unwrap().to_owned();
    let at = format!("{:#x}", memory.address());
    assert!(why.contains(&at), "{at} is not in {why}");

    // A feature that this device has not, a queue that it has not.
    let front_end = hello(&path);
    served.expect("connected");
    let translated = 1 << 33;
    let _answer = front_end.set_features(1 << 32 | translated);
    let why = served.expect("cut_off")["why"].as_str().unwrap().to_owned();
    assert!(
        why.contains("SET_FEATURES") && why.contains("ACCESS_PLATFORM"),
        "{why}"
    );
    let front_end = greet(Frontend::connect(&path, 64).unwrap());
    served.expect("connected");
    let _answer = front_end.set_vring_num(63, 64);
    let why = served.expect("cut_off")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("queue 63") && why.contains("has 1"), "{why}");

    // No message of vhost-user's.
    let mut stranger = UnixStream::connect(&path).unwrap();
    served.expect("connected");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    served.expect("cut_off");
    assert_eq!(stranger.read(&mut [0; 16]).unwrap_or(0), 0);

    // Who behaves.
    let mut disk = Disk::attach(&path, false);
    served.expect("connected");
    served.expect("running");
    disk.write(0, &[7; 512]);
    assert_eq!(disk.read(0), [7; 512]);
    drop(disk);
    served.expect("disconnected");
    served.signal(Signal::SIGTERM);
    let stopped = served.expect("stopped");
    assert_eq!(
        (&stopped["front_ends"], &stopped["cut_off"]),
        (&6.into(), &5.into())
    );
    assert_eq!(served.ended(), Some(0));
}

#[test]
fn memory_that_is_cut_short_in_use_is_not_the_end() {
    let (_home, path) = home();
    let served = Served::start(["sim:blk", "--vhost-user", text(&path)]);
    served.expect("listening");
    let mut disk = Disk::attach(&path, false);
    served.expect("connected");
    served.expect("running");
    disk.read_into_nothing();
    assert_eq!(served.expect("device")["what"], "needs_reset");
    let why = served.expect("cut_off")["why"].clone();
    assert!(why.as_str().unwrap().contains("was cut"), "{why}");
    drop(disk);
    // The same device, which is as good as before.
    let mut disk = Disk::attach(&path, true);
    served.expect("connected");
    served.expect("running");
    assert_eq!(disk.read(0), [0; 512]);
    drop(disk);
    served.expect("disconnected");
    served.stop(1);
}

#[test]
fn a_client_connects_to_whoever_listens_and_again() {
    let (_home, path) = home();
    let served = Served::start(["sim:blk", "--client", "--vhost-user", text(&path)]);
    assert_eq!(served.expect("connecting")["path"], text(&path));
    let why = served.expect("waiting")["why"].clone();
    assert!(why.as_str().unwrap().contains("No such file"), "{why}");
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        served.expect("connected");
        drop(greet(Frontend::from_stream(stream, 1)));
        served.expect("disconnected");
    }
    drop(listener);
    // Who is in the queue of a socket that goes is connected for a moment.
    let why = loop {
        let (event, waits) = served.either("connected", "waiting");
        if waits {
            break event["why"].clone();
        }
        served.either("disconnected", "cut_off");
    };
    assert!(why.as_str().unwrap().contains("refused"), "{why}");
    served.signal(Signal::SIGTERM);
    served.expect("stopped");
    assert_eq!(served.ended(), Some(0));
    // It is the front end's.
    assert!(path.exists());
}

// --- the end -----------------------------------------------------------------------------------------------------

#[test]
fn a_signal_ends_it_well_and_its_sockets_are_gone() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (home, path) = home();
        let served = Served::start(["sim:blk", "--vhost-user", text(&path)]);
        served.expect("listening");
        let mut disk = Disk::attach(&path, false);
        disk.write(1, &[1; 512]);
        served.expect("connected");
        served.expect("running");
        served.signal(signal);
        served.expect("disconnected");
        assert_eq!(served.expect("stopped")["by"], "signal");
        assert_eq!(served.ended(), Some(0));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let (_home, path) = home();
    let served = Served::start(["sim:blk", "--vhost-user", text(&path)]);
    served.expect("listening");
    served.signal(Signal::SIGKILL);
    assert_eq!(served.ended(), None);
    assert!(path.exists());
    let served = Served::start(["sim:blk", "--vhost-user", text(&path)]);
    served.expect("listening");
    drop(hello(&path));
    served.expect("connected");
    served.expect("disconnected");
    served.stop(1);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_somebody_else_put_there_stays() {
    let (_home, path) = home();
    let served = Served::start(["sim:blk", "--vhost-user", text(&path)]);
    served.expect("listening");
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    served.stop(1);
    assert!(path.exists());
}

// --- sockets -----------------------------------------------------------------------------------------------------

#[test]
fn the_socket_admits_whom_it_is_said_to() {
    let (_home, path) = home();
    let user = Uid::effective().to_string();
    let args = ["sim:blk", "--vhost-user", text(&path), "--mode", "0620"];
    let served = Served::start(args.into_iter().chain(["--owner", &user]));
    served.expect("listening");
    let socket = fs::metadata(&path).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o620);
    assert_eq!(socket.uid(), Uid::effective().as_raw());
    served.stop(1);
}

/// A server whose first descriptor after the three usual ones is `socket`, as systemd starts one.
fn started_with(socket: UnixListener, names: &str, args: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    shell.args([
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_vdpactl"),
        "serve",
        "--json",
    ]);
    shell.args(args).env("LISTEN_FDNAMES", names);
    shell.stdin(OwnedFd::from(socket));
    shell
}

#[test]
fn a_socket_that_systemd_passes_is_found_by_its_path_or_its_name() {
    let (_home, path) = home();
    for asked in [text(&path), "fd:front", "fd:3"] {
        let socket = UnixListener::bind(&path).unwrap();
        let args = ["sim:blk", "--vhost-user", asked];
        let served = Served::of(started_with(socket, "front", &args));
        assert_eq!(served.expect("listening")["path"], asked);
        let mut disk = Disk::attach(&path, false);
        served.expect("connected");
        served.expect("running");
        assert_eq!(disk.read(0), [0; 512]);
        drop(disk);
        served.expect("disconnected");
        served.stop(1);
        // It is systemd's, which starts us again when somebody connects.
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_socket_that_was_not_passed_is_refused_by_name() {
    let (_home, path) = home();
    let socket = || {
        let _old = fs::remove_file(&path);
        UnixListener::bind(&path).unwrap()
    };
    let refused = |mut command: Command| vdpactl::ended(&mut command);
    let args = ["sim:blk", "--vhost-user", "fd:back"];
    refused(started_with(socket(), "front", &args)).is_refused_with(&["fd:back", "front"]);
    run(["serve", "sim:blk", "--vhost-user", "fd:front"]).is_refused_with(&["fd:front", "systemd"]);
    let args = ["sim:blk", "--client", "--vhost-user", "fd:front"];
    refused(started_with(socket(), "front", &args)).is_refused_with(&["fd:front", "--client"]);
    // Meant for another process.
    let mut others = command(["serve", "sim:blk", "--vhost-user", "fd:front"]);
    others.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    refused(others).is_refused_with(&["fd:front", "no socket"]);
    // By a shell, which becomes the program that it sets these for.
    let by_shell = |line: &str, path: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line, "sh", env!("CARGO_BIN_EXE_vdpactl")]);
        shell.args(["serve", "sim:blk", "--vhost-user", path]);
        refused(shell)
    };
    let line = "LISTEN_PID=$$ LISTEN_FDS=many exec \"$@\" </dev/null";
    by_shell(line, "fd:front").is_refused_with(&["LISTEN_FDS", "many"]);
    // Nothing has that number, and nothing of ours may get it before it is looked at.
    let line = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" </dev/null 3<&-";
    by_shell(line, "fd:3").is_refused_with(&["LISTEN_FDS=1", "descriptor 3 is not open"]);
}
