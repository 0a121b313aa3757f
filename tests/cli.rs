//! The contract for scripts: exit codes, objects, and what bad input is answered with.
#![cfg(feature = "cli")]

mod vdpactl;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use vdpactl::{Run, command, ended, keys, run};

const CAPTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/capture/traffic.pcap");

// --- objects ---------------------------------------------------------------------------------

#[test]
fn dev_show_has_its_keys() {
    let run = run([
        "--json",
        "dev",
        "show",
        "sim:net,mac=52:54:00:12:34:56,mtu=9000,queue_pairs=2,queue_size=512",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    assert_eq!(
        keys(&object),
        [
            "capabilities",
            "config",
            "features",
            "kicks",
            "queues",
            "spec",
            "type",
            "vendor"
        ]
    );
    assert_eq!(object["type"], "net");
    assert_eq!(object["kicks"], "eventfd");
    assert!(object["vendor"].is_u64());
    assert_eq!(object["config"]["mac"], "52:54:00:12:34:56");
    assert_eq!(object["config"]["mtu"], 9000);
    assert_eq!(object["config"]["max_virtqueue_pairs"], 2);
    let features = object["features"].as_array().unwrap();
    for name in [
        "VERSION_1",
        "ACCESS_PLATFORM",
        "RING_PACKED",
        "IN_ORDER",
        "MAC",
        "MTU",
        "MQ",
        "MRG_RXBUF",
    ] {
        assert!(
            features.contains(&Value::from(name)),
            "{name} is not in {features:?}"
        );
    }
    let queues = object["queues"].as_array().unwrap();
    // Two pairs and the control queue.
    assert_eq!(queues.len(), 5);
    for queue in queues {
        assert_eq!(keys(queue.as_object().unwrap()), ["group", "max_size"]);
    }
    assert_eq!(queues[0]["max_size"], 512);
    let capabilities = object["capabilities"].as_array().unwrap();
    assert!(
        capabilities.iter().all(Value::is_string),
        "{capabilities:?}"
    );
}

#[test]
fn mgmtdev_show_lists_the_simulator_and_its_keys() {
    let run = run(["mgmtdev", "show", "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    assert_eq!(keys(&object), ["faults", "layers", "mgmtdevs"]);
    let named = |list: &Value, name: &str| {
        let list = list.as_array().unwrap().iter();
        list.filter(|item| item["name"] == name).count() == 1
    };
    assert!(named(&object["faults"], "kick.lost"));
    let layers = object["layers"].as_array().unwrap();
    for key in ["trace", "fault", "seed"] {
        assert!(
            layers.iter().any(|layer| named(&layer["keys"], key)),
            "{key}"
        );
    }
    let parents = object["mgmtdevs"].as_array().unwrap();
    let sim = parents
        .iter()
        .find(|parent| parent["name"] == "sim")
        .unwrap();
    let classes = sim["classes"].as_array().unwrap();
    let net = classes.iter().find(|class| class["what"] == "net").unwrap();
    assert!(named(&net["faults"], "ring.used_id"));
    let names: Vec<&str> = net["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["name"].as_str().unwrap())
        .collect();
    for key in [
        "mac",
        "mtu",
        "queue_pairs",
        "queue_size",
        "features",
        "port",
    ] {
        assert!(names.contains(&key), "{key} is not in {names:?}");
    }
}

#[test]
fn a_seed_that_was_chosen_is_told_and_shown() {
    let first = run(["dev", "show", "--json", "sim:net,fault=kick.lost:0.5"]);
    assert_eq!(first.code, 0, "{first:?}");
    let spec = first.object()["spec"].as_str().unwrap().to_owned();
    let (_, seed) = spec.split_once(",seed=").unwrap();
    assert!(first.stderr.contains(&format!("seed={seed}")), "{first:?}");
    // The same again is nothing to tell.
    let again = run(["dev", "show", "--json", &spec]);
    assert_eq!(again.object()["spec"], spec);
    assert_eq!(again.stderr, "");
}

#[test]
fn tracing_is_text_on_standard_error_as_far_as_it_is_asked_for() {
    let quiet = run(["dev", "show", "--json", "sim:net"]);
    assert_eq!(quiet.stderr, "");
    for level in ["--trace", "--trace=debug", "--trace=trace"] {
        let told = run(["dev", "show", "--json", "sim:net", level]);
        assert_eq!(told.object()["type"], "net");
        let calls = told
            .stderr
            .lines()
            .filter(|line| line.contains("call=\"queue_limits\""));
        assert_eq!(calls.count(), 3, "{told:?}");
        assert!(!told.stderr.contains('\u{1b}'));
    }
    let mut by_environment = command(["dev", "show", "--json", "sim:net"]);
    let told = ended(by_environment.env("RUST_LOG", "vdpa=debug"));
    assert!(told.stderr.contains("read_config"), "{told:?}");
    assert_eq!(told.object()["type"], "net");
    let mut wrong = command(["dev", "show", "sim:net"]);
    let refused = ended(wrong.env("RUST_LOG", "vdpa=loudly"));
    refused.is_refused_with(&["RUST_LOG", "vdpa=loudly", "vdpa=debug"]);
    run(["dev", "show", "sim:net", "--trace=loudly"]).is_refused_with(&["loudly", "trace"]);
}

#[test]
fn replay_has_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.pcap");
    let run = run([
        "replay".as_ref(),
        "sim:net,mtu=9000".as_ref(),
        CAPTURE.as_ref(),
        out.as_os_str(),
        "--json".as_ref(),
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    assert_eq!(keys(&object), ["dropped", "received", "ring", "sent"]);
    assert_eq!(object["sent"], 491);
    assert_eq!(object["received"], 491);
    assert_eq!(object["dropped"], serde_json::json!({}));
    assert_eq!(object["ring"], "split");
}

#[test]
fn bench_has_its_keys_and_verifies_every_packet() {
    for ring in ["split", "packed", "split-in-order", "packed-in-order"] {
        let run = run([
            "bench",
            "sim:net",
            "--seconds",
            "0.1",
            "--json",
            "--ring",
            ring,
        ]);
        assert_eq!(run.code, 0, "{run:?}");
        let object = run.object();
        assert_eq!(
            keys(&object),
            [
                "batch",
                "latency_ns",
                "ns_per_packet",
                "packets",
                "pps",
                "ring",
                "seconds",
                "size",
                "verified"
            ]
        );
        assert_eq!(object["ring"], ring);
        assert_eq!(object["size"], 64);
        assert!(object["packets"].as_u64().unwrap() > 0);
        assert_eq!(object["verified"], object["packets"]);
        assert!(object["pps"].as_f64().unwrap() > 0.0);
        let latency = object["latency_ns"].as_object().unwrap();
        assert_eq!(keys(latency), ["p50", "p99", "p999"]);
        let [p50, p99, p999] = ["p50", "p99", "p999"].map(|key| latency[key].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99 && p99 <= p999, "{latency:?}");
    }
}

#[test]
fn bench_reads_disks_and_leaves_images_as_they_were() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    let image: Vec<u8> = (0..1 << 20).map(|at| (at / 7) as u8).collect();
    std::fs::write(&path, &image).unwrap();
    let file = format!("sim:blk,file={}", path.display());
    let specs = [
        "sim:blk".to_owned(),
        file.clone(),
        file + ",ro=on,io=threads",
    ];
    for (spec, size) in specs.iter().zip([4096, 512, 65536]) {
        let size = size.to_string();
        let line = ["bench", spec, "--seconds", "0.1", "--json"];
        let mut line = line.to_vec();
        if size != "4096" {
            line.extend(["--size", &size]);
        }
        let run = run(line);
        assert_eq!(run.code, 0, "{run:?}");
        let object = run.object();
        assert_eq!(object["size"].to_string(), size);
        assert!(object["packets"].as_u64().unwrap() > 0);
        assert_eq!(object["verified"], object["packets"]);
        assert!(object["latency_ns"]["p50"].as_u64().unwrap() > 0);
    }
    assert!(std::fs::read(&path).unwrap() == image);
    let run = run(["bench", "sim:blk", "--size", "1000"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("multiple of 512"), "{run:?}");
}

#[test]
fn dev_show_tells_what_a_disk_and_a_source_of_randomness_are() {
    let run = run(["dev", "show", "sim:blk,size=1G,queues=2", "--json"]);
    let object = run.object();
    assert_eq!(object["type"], "block");
    assert_eq!(object["config"]["capacity"], 2_097_152);
    assert_eq!(object["queues"].as_array().unwrap().len(), 2);
    let run = crate::run(["dev", "show", "sim:rng", "--json"]);
    assert_eq!(run.object()["type"], "entropy");
    let run = crate::run(["dev", "show", "sim:blk,file=/no/such/image"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("truncate"), "{run:?}");
}

#[test]
fn bench_fills_the_mtu() {
    for size in ["60", "1514", "9014"] {
        let run = run([
            "bench",
            "sim:net,mtu=9000",
            "--seconds",
            "0.1",
            "--json",
            "--size",
            size,
        ]);
        assert_eq!(run.code, 0, "{run:?}");
        let object = run.object();
        assert_eq!(object["size"].to_string(), size);
        assert_eq!(object["verified"], object["packets"]);
    }
}

#[test]
fn completions_are_a_script() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(["completions", shell]);
        assert_eq!(script.code, 0);
        assert!(script.stdout.contains("vdpactl") && script.stdout.contains("replay"));
        let object = run(["completions", shell, "--json"]).object();
        assert_eq!(object["script"], script.stdout);
    }
}

#[test]
fn people_get_words_and_no_object() {
    for args in [
        &["dev", "show", "sim:net"][..],
        &["mgmtdev", "show"],
        &["bench", "sim:net", "--seconds", "0.1"],
    ] {
        let run = run(args);
        assert_eq!(run.code, 0, "{run:?}");
        assert!(
            !run.stdout.is_empty() && !run.stdout.contains(['{', '\u{1b}']),
            "{run:?}"
        );
        assert!(
            run.stdout.lines().all(|line| line.chars().count() <= 100),
            "{run:?}"
        );
    }
}

// --- bad input -------------------------------------------------------------------------------

#[test]
fn a_wrong_command_line_is_exit_2() {
    for args in [
        &["nonsense"][..],
        &["dev"],
        &["dev", "show"],
        &["dev", "show", "sim:net", "more"],
        &["bench", "--ring", "round"],
        &["bench", "--size", "59"],
        &["bench", "--batch", "0"],
        &["bench", "--seconds", "-1"],
        &["bench", "--seconds", "nan"],
        &["completions", "cmd.exe"],
    ] {
        let run = run(args);
        assert_eq!(run.code, 2, "{run:?}");
        assert_eq!(run.stdout, "", "{run:?}");
        assert!(run.stderr.starts_with("error: "), "{run:?}");
    }
}

#[test]
fn help_and_version_are_exit_0() {
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "bench"],
        &["bench", "-h"],
    ] {
        let run = run(args);
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(run.stderr, "");
        assert!(run.stdout.contains("vdpactl"), "{run:?}");
    }
}

/// The caret line under the string, as columns of carets.
fn pointed_at<'s>(run: &Run, spec: &'s str) -> &'s str {
    let mut lines = run.stderr.lines().skip_while(|line| line.trim() != spec);
    let string = lines
        .next()
        .unwrap_or_else(|| panic!("the string is not shown: {run:?}"));
    let carets = lines.next().unwrap();
    let margin = string.find(spec).unwrap();
    let first = carets.find('^').unwrap() - margin;
    &spec[first..first + carets.matches('^').count()]
}

#[test]
fn a_wrong_device_string_is_pointed_at() {
    for (spec, part, words) in [
        ("simm:net", "simm", &["simm", "sim"][..]),
        ("sim:nett", "nett", &["nett", "net"]),
        ("sim:net,mtuu=9000", "mtuu", &["mtuu", "mtu", "queue_size"]),
        ("sim:net,mtu=67", "67", &["mtu", "68"]),
        ("sim:net,mtu=65536", "65536", &["mtu", "65535"]),
        ("sim:net,queue_size=0", "0", &["queue_size", "32768"]),
        (
            "sim:net,queue_size=32769",
            "32769",
            &["queue_size", "32768"],
        ),
        ("sim:net,queue_pairs=129", "129", &["queue_pairs", "128"]),
        (
            "sim:net,mac=52:54:00",
            "52:54:00",
            &["mac", "52:54:00:00:00:01"],
        ),
        ("sim:net,port=loop", "loop", &["port", "loopback"]),
        (
            "sim:net,fault=kick.lots:0.1",
            "kick.lots",
            &["fault", "kick.lost", "ring.used_id"],
        ),
        ("sim:net,fault=kick.lost:2", "2", &["fault", "0..=1"]),
        ("sim:net,seed=7", "seed", &["seed"]),
        ("sim:net,mtu=1,mtu=2", "mtu", &["mtu", "twice"]),
    ] {
        for json in [false, true] {
            let args = ["dev", "show", spec]
                .into_iter()
                .chain(json.then_some("--json"));
            let run = run(args);
            run.is_refused_with(words);
            assert_eq!(pointed_at(&run, spec), part, "{run:?}");
        }
    }
}

#[test]
fn a_string_without_a_parent_is_refused() {
    for spec in [
        "",
        ":",
        "sim",
        "sim:",
        ":net",
        "sim:net,",
        "sim:net,mtu",
        "sim:net,=5",
        "\u{1b}[31m:x",
    ] {
        let run = run(["dev", "show", spec]);
        run.is_refused_with(&[]);
        assert!(
            !run.stderr.contains('\u{1b}'),
            "control characters are passed on: {run:?}"
        );
    }
}

#[test]
fn an_argument_that_is_no_text_is_named_in_one_line() {
    let no_text = |text: &[u8]| OsStr::from_bytes(text).to_owned();
    // A path may have any bytes.
    let path = no_text(b"/nowhere/\xff.sock");
    for (line, words) in [
        (
            vec![
                "serve".into(),
                "--vhost-user".into(),
                path,
                no_text(b"sim:net,mac=\xff"),
            ],
            ["argument 4, `sim:net,mac=\u{fffd}`", "UTF-8"],
        ),
        (
            vec![
                "dev".into(),
                "show".into(),
                no_text(b"\x1b[31m\xff"),
                "--json".into(),
            ],
            ["argument 3, `\\u{1b}[31m\u{fffd}`", "UTF-8"],
        ),
    ] {
        let run = run(&line);
        run.is_refused_with(&words);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}

#[test]
fn a_key_is_listed_once_however_deep_its_device_is() {
    let run = run(["dev", "show", "mdev:slice,of=sim:net;foo=2"]);
    run.is_refused_with(&["foo", "trace"]);
    assert_eq!(run.stderr.matches("trace").count(), 1, "{run:?}");
}

#[test]
fn there_are_no_slices_of_slices() {
    let spec = "mdev:slice,of=sim:net";
    let run = run(["mdev", "types", "--of", spec]);
    run.is_refused_with(&["slice", "own address"]);
    assert_eq!(pointed_at(&run, spec), "slice");
}

#[test]
fn a_ring_that_the_device_lacks_is_refused() {
    let run = run(["bench", "sim:net,features=-RING_PACKED", "--ring", "packed"]);
    run.is_refused_with(&["RING_PACKED", "packed"]);
}

#[test]
fn frames_larger_than_the_mtu_are_refused() {
    let run = run(["bench", "sim:net,mtu=1500", "--size", "1515"]);
    run.is_refused_with(&["1515", "1514", "mtu"]);
}

#[test]
fn a_port_that_gives_nothing_back_is_exit_1() {
    let run = run(["bench", "sim:net,port=null", "--seconds", "0.1", "--json"]);
    assert_eq!(run.code, 1, "{run:?}");
    let object = run.object();
    assert_eq!(object["verified"], 0);
    assert!(object["packets"].as_u64().unwrap() > 0);
    assert!(run.stderr.contains("error: "), "{run:?}");
}

#[test]
fn a_device_that_is_gone_is_what_its_packets_were_lost_by() {
    let gone = "fault=device.gone:1,seed=1";
    let net = format!("sim:net,features=-CTRL_VQ,{gone}");
    let run = run(["bench", &net, "--seconds", "0.1", "--json"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("gone"), "{run:?}");
    assert!(!run.stderr.contains("loop back"), "{run:?}");
}

/// Replays `input` into a directory of its own, and what is in there afterwards.
fn replay_into(dir: &Path, spec: &str, input: &Path) -> (Run, Vec<String>) {
    let out = dir.join("out.pcap");
    let run = run([
        "replay".as_ref(),
        spec.as_ref(),
        input.as_os_str(),
        out.as_os_str(),
    ]);
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    (run, names)
}

#[test]
fn a_damaged_capture_is_refused_and_nothing_is_left_behind() {
    let whole = fs::read(CAPTURE).unwrap();
    let mut next_generation = whole.clone();
    next_generation[..4].copy_from_slice(&[0x0a, 0x0d, 0x0d, 0x0a]);
    for (bytes, words) in [
        (&whole[..whole.len() - 1], &["in.pcap", "packet 491"][..]),
        (&whole[..30], &["in.pcap", "packet 1"]),
        (&whole[..10], &["in.pcap", "header"]),
        (&[], &["in.pcap", "empty"]),
        (
            b"GIF89a, this is no capture at all",
            &["in.pcap", "not a pcap"],
        ),
        (&next_generation, &["in.pcap", "pcapng", "editcap"]),
    ] {
        let (inputs, outputs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let input = inputs.path().join("in.pcap");
        fs::write(&input, bytes).unwrap();
        let (run, left) = replay_into(outputs.path(), "sim:net,mtu=9000", &input);
        run.is_refused_with(words);
        assert_eq!(left, [] as [&str; 0]);
    }
}

#[test]
fn a_capture_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (run, left) = replay_into(dir.path(), "sim:net", Path::new("/nowhere/in.pcap"));
    run.is_refused_with(&["/nowhere/in.pcap", "No such file"]);
    assert_eq!(left, [] as [&str; 0]);
}

#[test]
fn a_wrong_device_leaves_the_old_output_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("out.pcap"), "precious").unwrap();
    let (run, left) = replay_into(dir.path(), "sim:net,mtu=1", Path::new(CAPTURE));
    run.is_refused_with(&["mtu"]);
    assert_eq!(left, ["out.pcap"]);
    assert_eq!(
        fs::read_to_string(dir.path().join("out.pcap")).unwrap(),
        "precious"
    );
}

#[test]
fn the_input_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.pcap");
    let other_name = dir.path().join("again.pcap");
    fs::copy(CAPTURE, &input).unwrap();
    fs::hard_link(&input, &other_name).unwrap();
    for output in [&input, &other_name] {
        let run = run([
            "replay".as_ref(),
            "sim:net,mtu=9000".as_ref(),
            input.as_os_str(),
            output.as_os_str(),
        ]);
        run.is_refused_with(&["same file"]);
        assert_eq!(fs::read(&input).unwrap(), fs::read(CAPTURE).unwrap());
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for out in ["/nowhere/out.pcap", dir.path().to_str().unwrap()] {
        let run = run(["replay", "sim:net,mtu=9000", CAPTURE, out]);
        run.is_refused_with(&[out]);
    }
}

// --- surroundings ----------------------------------------------------------------------------

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for args in [
        &["--help"][..],
        &["mgmtdev", "show"],
        &["completions", "bash"],
    ] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert_eq!(stderr, "", "{args:?}");
    }
}

#[test]
fn a_third_end_of_a_wire_is_refused() {
    let registry = vdpa::registry();
    let spec = "sim:net,port=wire:two-ends";
    let _both = [registry.open(spec).unwrap(), registry.open(spec).unwrap()];
    let error = registry.open(spec).unwrap_err().to_string();
    assert!(
        error.contains("two-ends") && !error.contains('\n'),
        "{error}"
    );
}

#[test]
fn colours_are_for_terminals() {
    let mut command = command(["dev", "show", "sim:net"]);
    let run = ended(command.env("TERM", "xterm-256color").env_remove("NO_COLOR"));
    assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
}
