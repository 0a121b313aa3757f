//! Counters and `docs/statistics.md`: what is there is documented, and what is documented is there.

mod disk;
mod rig;

use std::collections::BTreeSet;

use disk::Disk;
use rig::*;

/// The names in the first column of the tables below these headings.
fn documented(headings: &[&str]) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/statistics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut names = BTreeSet::new();
    for heading in headings {
        let begin = text.find(&format!("## {heading}\n")).expect(heading) + 3;
        let end = text[begin..]
            .find("\n## ")
            .map_or(text.len(), |at| begin + at);
        for row in text[begin..end]
            .lines()
            .filter(|line| line.starts_with("| `"))
        {
            let cell = row.split('|').nth(1).unwrap();
            for name in cell.split('`').skip(1).step_by(2) {
                // Sizes of batches are listed by their ends; `dropped.*` stands for what is listed elsewhere.
                let name = match name.starts_with('.') {
                    true => format!("batches{name}"),
                    false => name.to_owned(),
                };
                if !name.ends_with('*') {
                    names.insert(name);
                }
            }
        }
    }
    names
}

/// The names of a device's counters; of queues without the queue.
fn counted(spec: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut add = |name: &str, _| {
        let (place, rest) = name.split_once('.').unwrap();
        let whole = ["port", "image"].contains(&place);
        names.insert(if whole { name } else { rest }.to_owned());
    };
    Lab::new().open(spec).device.stats(&mut add).unwrap();
    names
}

#[test]
fn every_counter_is_documented_and_every_documented_counter_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, [0; 4096]).unwrap();
    let net: &[_] = &[
        "Every queue but a control queue",
        "Data queues of a network device",
        "Transmit queues",
        "Receive queues",
        "The control queue",
    ];
    let disk: &[_] = &[
        "Every queue but a control queue",
        "Request queues of a disk",
    ];
    let rng: &[_] = &[
        "Every queue but a control queue",
        "The queue of an entropy device",
    ];
    let mirror = format!("sim:net,mirror={}", dir.path().join("all.pcap").display());
    let file = format!("sim:blk,file={}", image.display());
    for (spec, headings, more) in [
        ("sim:net", net, None),
        ("sim:net,port=switch:a", net, Some("A switch")),
        (&*mirror, net, Some("A mirror")),
        ("sim:blk", disk, None),
        (&*file, disk, Some("The file of a disk")),
        ("sim:rng", rng, None),
    ] {
        let headings: Vec<_> = headings.iter().copied().chain(more).collect();
        assert_eq!(counted(spec), documented(&headings), "{spec}");
    }
}

#[test]
fn a_disk_counts_kicks_calls_and_batches_as_a_card_does() {
    let mut disk = Disk::open("sim:blk,size=1M,poll_us=0");
    for i in 0..5 {
        disk.write(i, &[1; 512]);
    }
    disk.read(0, 512);
    let stat = |disk: &Disk, name: &str| disk.rig.stat(&format!("queue0.{name}"));
    assert_eq!(stat(&disk, "requests.write"), 5);
    assert_eq!(stat(&disk, "requests.read"), 1);
    // One at a time: each was either told of, or not wanted to be.
    until("the last batch", || stat(&disk, "batches.1") == 6);
    let told = |disk: &Disk| stat(disk, "calls") + stat(disk, "suppressed");
    until("the last call", || told(&disk) == 6);
    // A queue that nobody looks at needs a kick.
    until("a kick", || {
        std::thread::sleep(std::time::Duration::from_millis(1));
        disk.read(0, 512);
        stat(&disk, "kicks") > 0
    });
}
