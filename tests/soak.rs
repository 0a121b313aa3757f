//! `vdpactl soak` as a script sees it: devices that keep their word pass, and those that do not are caught.
#![cfg(feature = "cli")]

mod vdpactl;

use serde_json::{Map, Value};
use vdpactl::{Run, keys, run};

/// The keys of a result that scripts rely on.
const KEYS: [&str; 6] = [
    "altered",
    "dropped_by_definition",
    "duplicated",
    "interruptions",
    "lost",
    "packets",
];

/// A run with --json, its lines as objects.
struct Soaked {
    run: Run,
    lines: Vec<Map<String, Value>>,
}

fn soak(spec: &str, packets: u32, more: &[&str]) -> Soaked {
    let packets = packets.to_string();
    let line = ["soak", spec, "--packets", &packets, "--json"];
    let run = run(line.iter().chain(more));
    let lines = run.stdout.lines().map(|line| {
        let mut object: Map<String, Value> = serde_json::from_str(line).unwrap();
        assert_eq!(object.remove("schema"), Some(Value::from(1)), "{line}");
        object
    });
    Soaked {
        lines: lines.collect(),
        run,
    }
}

impl Soaked {
    #[track_caller]
    fn result(&self) -> &Map<String, Value> {
        let last = self.lines.last().expect("it prints lines");
        assert_eq!(last["event"], "result", "{:?}", self.run);
        assert!(KEYS.iter().all(|key| last[*key].is_u64()), "{last:?}");
        last
    }

    #[track_caller]
    fn number(&self, key: &str) -> u64 {
        self.result()[key].as_u64().unwrap()
    }

    /// Nothing is missing, and as much was counted as was sent.
    #[track_caller]
    fn is_well(&self, packets: u64, interruptions: u64) {
        assert_eq!(self.run.code, 0, "{:?}", self.run);
        let result = self.result();
        for key in ["lost", "duplicated", "altered"] {
            assert_eq!(result[key], 0, "{result:?}");
        }
        assert!(result["failure"].is_null(), "{result:?}");
        assert_eq!(self.number("packets"), packets);
        let came = self.number("received") + self.number("dropped_by_definition");
        assert_eq!(came, packets, "{result:?}");
        let count = self.number("interruptions");
        assert!(count >= interruptions, "{result:?}");
        let by_operation = result["operations"].as_object().unwrap().values();
        let sum: u64 = by_operation.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, count);
    }

    /// It failed, as these words say, and says how to repeat it.
    #[track_caller]
    fn is_caught(&self, words: &[&str]) -> &Map<String, Value> {
        assert_eq!(self.run.code, 1, "{:?}", self.run);
        let result = self.result();
        let failure = result["failure"].as_str().unwrap();
        for word in words {
            assert!(failure.contains(word), "{word:?} is not in {failure:?}");
        }
        let repeat = result["repeat"].as_str().unwrap();
        assert!(repeat.starts_with("vdpactl soak "), "{repeat}");
        assert!(repeat.contains("--seed 1 --every"), "{repeat}");
        assert!(self.run.stderr.contains(repeat), "{:?}", self.run);
        result
    }

    fn operations(&self) -> Vec<&str> {
        let operations = self.result()["operations"].as_object().unwrap();
        operations.keys().map(String::as_str).collect()
    }
}

const ALL: [&str; 8] = [
    "disable",
    "link",
    "move",
    "pairs",
    "pause",
    "queue_reset",
    "reset",
    "suspend",
];

#[track_caller]
fn cards(ring: &str) {
    let spec = "sim:net,queue_pairs=3";
    let soaked = soak(
        spec,
        100_000,
        &["--seed", "1", "--every", "200", "--ring", ring],
    );
    soaked.is_well(100_000, 400);
    assert_eq!(soaked.operations(), ALL);
    assert!(soaked.number("phases") > 32, "every combination comes");
}

#[test]
fn a_card_keeps_every_packet_with_split_rings() {
    cards("split");
}

#[test]
fn a_card_keeps_every_packet_with_packed_rings() {
    cards("packed");
}

#[test]
fn a_card_keeps_every_packet_with_split_rings_in_order() {
    cards("split-in-order");
}

#[test]
fn a_card_keeps_every_packet_with_packed_rings_in_order() {
    cards("packed-in-order");
}

#[test]
fn a_disk_keeps_every_sector() {
    for (spec, move_to) in [
        ("sim:blk,size=4M", true),
        ("sim:blk,size=16M,queues=3", true),
    ] {
        let soaked = soak(spec, 20_000, &["--seed", "1", "--every", "200"]);
        soaked.is_well(20_000, 80);
        let operations = soaked.operations();
        assert_eq!(operations.contains(&"move"), move_to);
        for operation in ["disable", "pause", "queue_reset", "reset", "suspend"] {
            assert!(operations.contains(&operation), "{operations:?}");
        }
    }
}

#[test]
fn a_disk_in_a_file_with_blocks_of_4_kib_keeps_every_sector_and_stays_where_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let spec = format!("sim:blk,blk_size=4096,file={}", file.path().display());
    let soaked = soak(&spec, 5000, &["--seed", "1", "--every", "100"]);
    soaked.is_well(5000, 40);
    let why = soaked.result()["left_out"]["move"].as_str().unwrap();
    assert!(
        why.contains("second device") && why.contains("in use"),
        "{why}"
    );
}

#[test]
fn what_a_device_cannot_do_is_left_out_and_said() {
    let spec = "sim:net,features=VERSION_1";
    let soaked = soak(spec, 5000, &["--seed", "1"]);
    soaked.is_well(5000, 50);
    let left_out = soaked.result()["left_out"].as_object().unwrap();
    assert_eq!(keys(left_out), ["pairs", "queue_reset"]);
    let told = run(["soak", spec, "--packets", "500", "--seed", "1"]);
    assert_eq!(told.code, 0, "{told:?}");
    for words in [
        "queue_reset: the device has no RING_RESET",
        "0 lost",
        "seed",
    ] {
        assert!(told.stdout.contains(words), "{told:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_plan() {
    let of = |seed: &str| {
        let soaked = soak("sim:net,queue_pairs=2", 10_000, &["--seed", seed]);
        soaked.is_well(10_000, 100);
        let result = soaked.result().clone();
        let plan = ["plan", "operations", "interruptions", "phases", "seed"];
        plan.map(|key| result[key].clone())
    };
    let one = of("7");
    assert_eq!(one, of("7"));
    assert_ne!(one[0], of("8")[0]);
}

#[test]
fn every_line_is_an_object_with_its_keys() {
    let soaked = soak("sim:net", 300_000, &[]);
    soaked.is_well(300_000, 100);
    let events: Vec<&str> = soaked
        .lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    let [first, between @ .., last] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((*first, *last), ("plan", "result"));
    assert!(
        between.iter().all(|event| *event == "progress"),
        "{events:?}"
    );
    let progress = soaked
        .lines
        .iter()
        .filter(|line| line["event"] == "progress");
    for line in progress {
        assert!(KEYS.iter().all(|key| line[*key].is_u64()), "{line:?}");
    }
    let plan = &soaked.lines[0];
    assert_eq!(plan["planned"], 300_000);
    let seed = plan["seed"].as_u64().expect("one is chosen, and said");
    assert_eq!(soaked.number("seed"), seed);
    assert_eq!(
        keys(soaked.result()),
        [
            "altered",
            "dropped_by_definition",
            "duplicated",
            "event",
            "every",
            "failure",
            "interruptions",
            "left_out",
            "lost",
            "operations",
            "packets",
            "phases",
            "plan",
            "received",
            "repeat",
            "seconds",
            "seed",
            "spec",
        ]
    );
}

/// A device with a fault is not moved or reset before it shows.
const LONG: [&str; 4] = ["--seed", "1", "--every", "100000"];

/// Each device that it moves to begins with its link down too.
#[test]
fn a_card_whose_link_is_down_at_first_is_soaked_with_its_link_up() {
    let soaked = soak(
        "sim:net,link=down",
        20_000,
        &["--seed", "1", "--every", "50"],
    );
    assert_eq!(soaked.run.code, 0, "{:?}", soaked.run);
    assert_eq!(soaked.number("lost"), 0);
}

#[test]
fn a_card_that_loses_packets_is_caught() {
    let soaked = soak("sim:net,fault=packet.lost:@500,seed=1", 5000, &LONG);
    let result = soaked.is_caught(&["did not come", "phase 0"]);
    assert_eq!(result["lost"], 1, "{result:?}");
}

#[test]
fn a_card_that_alters_packets_is_caught() {
    let soaked = soak("sim:net,fault=dma.corrupt:@500,seed=1", 5000, &LONG);
    let result = soaked.is_caught(&["came altered", "receive queue 0"]);
    assert_eq!(result["altered"], 1, "{result:?}");
}

#[test]
fn a_card_that_has_packets_come_twice_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("twice.pcap");
    // What was sent, and what was received: each packet twice.
    let more = ["--seed", "1", "--every", "100000"];
    let mirrored = format!("sim:net,mirror={}", capture.display());
    soak(&mirrored, 50, &more).is_well(50, 0);
    let played = format!("sim:net,port=pcap:{}", capture.display());
    let soaked = soak(&played, 50, &more);
    let result = soaked.is_caught(&["packet"]);
    assert!(result["duplicated"].as_u64() > Some(0), "{result:?}");
}

#[test]
fn a_card_that_does_not_hear_or_call_is_caught() {
    let soaked = soak(
        "sim:net,poll_us=0,fault=kick.lost:0.2,seed=1",
        50_000,
        &LONG,
    );
    soaked.is_caught(&["did not come in 10 s", "kicked again"]);
    let soaked = soak("sim:net,fault=call.lost:0.5,seed=1", 50_000, &LONG);
    soaked.is_caught(&["did not call for 10 s"]);
}

#[test]
fn a_card_that_fails_is_caught() {
    let soaked = soak(
        "sim:net,poll_us=0,fault=device.needs_reset:@20,seed=1",
        50_000,
        &LONG,
    );
    soaked.is_caught(&["did not come in 10 s", "DEVICE_NEEDS_RESET"]);
    let soaked = soak("sim:net,fault=ring.used_id:@100,seed=1", 5000, &LONG);
    soaked.is_caught(&["the ring is broken"]);
    let more = ["--seed", "1", "--every", "50"];
    let soaked = soak("sim:net,fault=control.error:0.2,seed=1", 5000, &more);
    soaked.is_caught(&["on purpose"]);
}

#[test]
fn a_card_whose_packets_go_elsewhere_is_caught() {
    let soaked = soak("sim:net,port=null", 100, &LONG);
    let result = soaked.is_caught(&["does its port loop back?"]);
    assert_eq!(result["lost"], result["packets"]);
}

#[test]
fn a_disk_that_alters_or_forgets_is_caught() {
    // Enough that most sectors have been written: what others hold nobody knows.
    let soaked = soak("sim:blk,fault=dma.corrupt:0.01,seed=1", 50_000, &LONG);
    let result = soaked.is_caught(&["holds no version"]);
    assert_eq!(result["altered"], 1);
    let soaked = soak("sim:blk,fault=ring.used_lost:@300,seed=1", 5000, &LONG);
    soaked.is_caught(&["10 s"]);
    let soaked = soak("sim:blk,fault=dma.read:@300,seed=1", 5000, &LONG);
    let result = soaked.is_caught(&["a request of queue 0 failed", "I/O error"]);
    assert_eq!(result["lost"], 1);
}

#[test]
fn what_cannot_be_soaked_is_refused() {
    let refused = |line: &[&str], words: &[&str]| {
        run([&["soak"], line].concat()).is_refused_with(words);
    };
    refused(&["sim:rng"], &["entropy", "network and block devices"]);
    refused(&["sim:blk,size=1M,ro=on"], &["read-only"]);
    refused(&["sim:what"], &["what"]);
    refused(&["sim"], &["sim"]);
    let line = ["sim:net,features=VERSION_1", "--ring", "packed"];
    refused(&line, &["does not offer packed rings", "split"]);
    for line in [
        ["sim:net", "--packets", "0"],
        ["sim:net", "--seed", "x"],
        ["sim:net", "--every", "0"],
        ["sim:net", "--ring", "round"],
    ] {
        let run = run([&["soak"][..], &line].concat());
        assert_eq!((run.code, &*run.stdout), (2, ""), "{run:?}");
    }
}
