//! Writes the seed corpora again: `cargo run --example seeds`. What is in them is made here and nowhere else, so that a
//! target that reads its bytes otherwise is given other seeds by a change of this file.

use std::path::Path;

/// A seed: what it shows, and its bytes.
type Seed = (&'static str, Vec<u8>);

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in [
        ("driver_split", driver()),
        ("driver_packed", driver()),
        ("device_split", device()),
        ("device_packed", device()),
        ("control_queue", control()),
        ("setup", setup()),
        ("block_request", block()),
        ("net_header", net()),
        ("restore", restore()),
        ("device_string", string()),
        ("vhost_user", socket()),
    ] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Parts one behind the other.
fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// What a front end says: which device, then steps.
fn socket() -> Vec<Seed> {
    const UP: &[u8] = &[0, 255];
    const POST: &[u8] = &[8, 0, 0, 1, 2];
    let of = |which: u8, rest: &[&[u8]]| cat(&[&[which], &rest.concat()]);
    vec![
        ("net", of(0, &[UP, POST])),
        ("block_packed", of(3, &[UP, POST])),
        ("half", of(2, &[&[0, 12], &[4, 5, 1, 0, 0, 0, 1]])),
        (
            "a_region",
            of(2, &[UP, &[5, 2, 0, 1, 1, 0], POST, &[5, 1, 0, 1, 1, 0]]),
        ),
        (
            "a_table",
            of(
                3,
                &[
                    UP,
                    &[5, 0, 2, 0, 0, 1, 0, 1, 2, 1, 4, 1],
                    POST,
                    &[5, 0, 0, 1],
                ],
            ),
        ),
        (
            "any",
            of(
                0,
                &[
                    &[2, 4, 0, 0, 0, 250],
                    UP,
                    &[2, 16, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0],
                ],
            ),
        ),
        ("unknown", of(1, &[UP, &[2, 0, 255, 45, 0, 0, 0, 0, 0, 0]])),
        ("cut", of(2, &[UP, &[5, 2, 0, 0, 5, 0], &[9, 0, 0], POST])),
        (
            "translated",
            of(
                6,
                &[
                    &[0, 5],
                    &[10, 1, 0, 0, 0, 64, 3, 0, 0, 0],
                    &[5, 2, 0, 0, 5, 0],
                    &[7, 0, 16, 0, 1, 0, 3, 0],
                    &[7, 0, 16, 0, 1, 0, 3, 1],
                ],
            ),
        ),
        (
            "logged",
            of(2, &[UP, &[10, 2, 0, 64, 0], &[10, 0, 1], POST, &[10, 0, 0]]),
        ),
        ("a_record", of(3, &[UP, POST, &[12, 0, 0], UP])),
        ("saved", of(0, &[UP, &[13, 0]])),
        (
            "loaded",
            of(0, &[&[0, 16], &[13, 1, 8, 1, 0, 0, 0, 1, 0, 0, 0]]),
        ),
        (
            "held_up",
            of(2, &[UP, &[8 + 28, 0, 0, 1, 2], &[5, 0, 0, 1]]),
        ),
        (
            "stopped",
            of(
                0,
                &[
                    UP,
                    &[11, 0, 0, 0],
                    &[11, 1, 3, 1],
                    &[11, 0, 1, 3],
                    &[11, 0, 0, 5],
                    UP,
                ],
            ),
        ),
    ]
}

/// Rings of 8 slots, with features in the first byte.
fn driver() -> Vec<Seed> {
    const TAKE: &[u8] = &[11, 20];
    const COMMIT: &[u8] = &[14, 1, 0, 9];
    let ring = |features: u8| [features, 3, 19];
    let post = |shape: u8| [3, shape, 0, shape, 0];
    vec![
        ("a_chain", cat(&[&ring(0), &post(4), TAKE, COMMIT])),
        ("a_table", cat(&[&ring(1), &post(64 | 1 | 4), TAKE, COMMIT])),
        (
            "events",
            cat(&[&ring(2), &[17], &post(4), TAKE, &[18], COMMIT]),
        ),
        (
            "in_order",
            cat(&[&ring(4), &post(4), &post(5), TAKE, &[15, 2]]),
        ),
        ("goes_on", cat(&[&ring(0), &post(4), TAKE, &[19], COMMIT])),
        (
            "a_record",
            cat(&[&ring(16), &post(4), &post(5), TAKE, &[19], TAKE, COMMIT]),
        ),
        (
            "rewound",
            cat(&[
                &ring(16),
                &post(4),
                &post(5),
                TAKE,
                &[16, 0, 1],
                TAKE,
                COMMIT,
            ]),
        ),
        (
            "bent",
            cat(&[&ring(1), &[3, 5, 0x84, 0, 0], TAKE, TAKE, &[17]]),
        ),
        (
            "not_mapped",
            cat(&[&ring(1), &[9, 1, 0, 0], &post(64 | 4), TAKE, &[9, 0], TAKE]),
        ),
        (
            "flips",
            cat(&[
                &ring(1),
                &post(5),
                &[10, 2, 255, 0, 0, 0, 0, 0, 0, 0, 0],
                TAKE,
            ]),
        ),
        ("too_long", cat(&[&ring(0), &post(128 | 3 | 4), TAKE, TAKE])),
        ("a_jump", cat(&[&ring(0), &[8, 1, 0, 1], TAKE, TAKE])),
        (
            "a_state",
            cat(&[&ring(8), &[0, 5, 0, 2, 0], &post(4), TAKE, COMMIT]),
        ),
    ]
}

/// The same from the other side.
fn device() -> Vec<Seed> {
    let ring = |features: u8| [features, 3, 0, 0];
    const ADD: &[u8] = &[0, 8 | 1];
    const SHOW: &[u8] = &[3];
    const BACK: &[u8] = &[8, 0, 0];
    const TAKE: &[u8] = &[4, 8];
    vec![
        ("a_chain", cat(&[&ring(0), ADD, SHOW, BACK, TAKE])),
        (
            "tables",
            cat(&[&ring(1 | 32), &[0, 8 | 2], SHOW, BACK, TAKE]),
        ),
        (
            "events",
            cat(&[&ring(2), &[6], ADD, SHOW, BACK, TAKE, &[7]]),
        ),
        (
            "in_order",
            cat(&[&ring(4), ADD, ADD, SHOW, &[8, 1, 0], TAKE]),
        ),
        (
            "too_long",
            cat(&[&ring(0), ADD, SHOW, &[8, 0, 3, 1, 0, 0, 0], TAKE, TAKE]),
        ),
        (
            "replayed",
            cat(&[&ring(0), ADD, SHOW, BACK, TAKE, BACK, TAKE, TAKE]),
        ),
        (
            "a_guess",
            cat(&[&ring(0), ADD, SHOW, &[8, 0, 28, 7, 0], TAKE, TAKE]),
        ),
        ("not_shown", cat(&[&ring(0), ADD, BACK, TAKE])),
        (
            "flips",
            cat(&[&ring(0), ADD, SHOW, BACK, &[13, 1, 255, 0, 0, 8]]),
        ),
        ("goes_on", cat(&[&[8, 3, 250, 255], ADD, SHOW, BACK, TAKE])),
    ]
}

/// Commands: class, command, data, no damage, a layout.
fn control() -> Vec<Seed> {
    let with = |command: &[u8]| cat(&[&[0, 0, 0], command, &[255, 0]]);
    let cut = |command: &[u8], layout: &[u8]| cat(&[&[0, 0, 0], command, &[255], layout]);
    vec![
        ("promiscuous", with(&[0, 0, 1])),
        (
            "every_mode",
            cat(&[&with(&[0, 0, 1]), &[0, 5, 1, 255, 0, 0, 3, 1, 255, 0]]),
        ),
        ("mac_table", with(&[1, 0, 2, 1])),
        ("mac_table_too_long", with(&[1, 0, 254, 9, 1])),
        ("mac", with(&[1, 1, 2, 0, 0, 0, 0, 9])),
        ("vlan", with(&[2, 0, 7, 0])),
        ("announced", with(&[3, 0])),
        ("pairs", with(&[4, 0, 3, 0])),
        ("steering", with(&[4, 1, 2, 40, 63, 0, 4])),
        (
            "hashing",
            cat(&[
                &[0, 1, 0],
                &[4, 2, 40],
                &[63, 0, 0, 0],
                &[0; 8],
                &[40],
                &[255, 0],
            ]),
        ),
        ("offloads", with(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0])),
        ("coalescing", with(&[6, 0, 1, 0, 0, 0, 2, 0, 0, 0])),
        ("of_a_queue", with(&[6, 2, 1, 1, 0, 0, 0, 2, 0, 0, 0])),
        ("asked_for", cut(&[6, 3, 1], &[4, 3])),
        ("statistics", cut(&[8, 0, 0], &[4, 1])),
        ("bytes", cut(&[1, 1, 2, 0, 0, 0, 0, 9], &[5])),
        (
            "nowhere",
            cut(&[0, 0, 1], &[7 | 1 << 3 | 1 << 5, 7, 0, 0, 9, 7, 0, 0, 9]),
        ),
    ]
}

/// A device of each class, brought up.
fn setup() -> Vec<Seed> {
    const UP: &[u8] = &[1, 12 | 16 | 32 | 2];
    let of = |which: u8, rest: &[&[u8]]| cat(&[&[which], UP, &rest.concat()]);
    vec![
        ("net", of(0, &[&[19, 1, 1, 0, 72], &[23]])),
        ("block", of(1, &[&[19, 0, 1 | 8, 0, 16, 0, 200, 0, 1]])),
        ("entropy", of(2, &[&[19, 0, 4, 0, 100]])),
        (
            "page_requests",
            of(3, &[&[13, 0, 0, 2], &[19, 0, 1 | 8, 0, 16, 0, 200, 0, 1]]),
        ),
        ("stopped", of(1, &[&[8, 0, 0], &[5, 0, 28, 60]])),
        ("queue_reset", of(0, &[&[9, 1, 0], &[5, 1, 28, 60]])),
        (
            "suspended",
            of(0, &[&[14, 1], &[14, 4], &[14, 3, 1], &[15, 0], &[14, 2]]),
        ),
        ("by_driver", of(1, &[&[0, 27], &[23], &[0, 15]])),
        ("switched_off", of(0, &[&[10, 1, 0], &[19, 1, 1, 0, 72]])),
        (
            "unmapped",
            of(0, &[&[13, 0, 0, 255], &[19, 1, 1, 0, 72], &[12, 0, 0, 12]]),
        ),
        (
            "groups",
            cat(&[&[0], &[11, 1, 1], UP, &[13, 1, 0, 255], &[22, 4, 1, 9, 9]]),
        ),
        (
            "set",
            of(
                0,
                &[&[18, 0], &[18, 1], &[18, 3], &[18, 4, 2, 0, 0, 0, 0, 9]],
            ),
        ),
        (
            "configuration",
            of(
                1,
                &[&[4, 0, 60, 0], &[4, 32, 1, 1], &[4, 255, 0, 0, 0, 0, 9, 0]],
            ),
        ),
        ("scribbled", of(0, &[&[22, 1, 65, 9, 9], &[23]])),
        (
            "a_record",
            cat(&[
                &[1],
                &[1, 12 | 2],
                &[17, 0, 0, 0, 4],
                &[5, 0, 28, 60],
                &[0, 15],
            ]),
        ),
    ]
}

/// Batches of requests: shape, type, sector, the rest.
fn block() -> Vec<Seed> {
    // A buffer of 512 bytes beside header and status.
    const DATA: &[u8] = &[3 << 3, 0, 0];
    let one = |kind: u8, request: &[&[u8]]| cat(&[&[kind, 0], &request.concat()]);
    let write = |sector: u8| cat(&[&[1], DATA, &[1, sector, 7]]);
    vec![
        ("write", one(0, &[&write(3)])),
        ("read", one(0, &[&[4], DATA, &[0, 3, 7]])),
        (
            "written_and_read",
            cat(&[&one(0, &[&write(3)]), &[0, 4], DATA, &[0, 3, 7]]),
        ),
        ("read_only", one(7, &[&write(3)])),
        ("flush", one(0, &[&[0, 2, 0, 7]])),
        ("identity", one(0, &[&[4], DATA, &[3, 0, 7]])),
        (
            "discard",
            one(0, &[&[1], &[1 << 3, 0, 0], &[4, 0, 1, 2, 3, 0]]),
        ),
        (
            "zeroes",
            one(0, &[&[1], &[1 << 3, 0, 0], &[5, 0, 1, 2, 3, 1]]),
        ),
        (
            "erase",
            one(0, &[&[1], &[1 << 3, 0, 0], &[6, 0, 1, 2, 3, 0]]),
        ),
        ("beyond", one(0, &[&write(16)])),
        ("packed_and_unstable", one(8 | 16 | 32 | 64, &[&write(2)])),
        (
            "wraps",
            one(0, &[&cat(&[&[1], DATA, &[1, 254], &[0; 8], &[7]])]),
        ),
        (
            "nowhere",
            one(0, &[&[5, 3 << 3 | 7, 0, 0, 3 << 3 | 7, 0, 0, 1, 1, 7]]),
        ),
        ("no_status", one(0, &[&[0x81], DATA, &[1, 1, 7]])),
    ]
}

/// Packets: features, shape, more, payload, its seed, segment size, what is wrong.
fn net() -> Vec<Seed> {
    let of = |features: [u8; 2], packet: &[u8]| cat(&[&features, packet]);
    const ALL: [u8; 2] = [0, 0];
    vec![
        ("tcp4_checksum", of(ALL, &[0, 0, 200, 1, 0, 0])),
        ("tcp4_segments", of(ALL, &[4, 0, 200, 1, 40, 0])),
        ("tcp6_segments", of(ALL, &[5, 0, 200, 1, 40, 0])),
        ("udp4_segments", of(ALL, &[6, 0, 200, 1, 40, 0])),
        ("udp6_segments", of(ALL, &[7, 0, 200, 1, 40, 0])),
        ("tags", of(ALL, &[4 | 24, 0, 200, 1, 40, 0])),
        ("options", of(ALL, &[4, 7, 200, 1, 40, 0])),
        ("congestion", of(ALL, &[4, 0x90, 200, 1, 40, 0])),
        ("for_no_offloads", of([0, 1], &[4, 0, 200, 1, 40, 0])),
        ("for_checksums_alone", of([31, 0], &[4, 0, 200, 1, 40, 0])),
        ("one_buffer", of([32, 0], &[4, 0, 200, 1, 40, 0])),
        ("packed_in_pieces", of([0, 0xb0], &[4, 0, 200, 1, 40, 0])),
        ("plain", of(ALL, &[0, 0, 50, 1, 0, 3, 0, 0])),
        ("tiny_segments", of(ALL, &[0, 0, 200, 1, 1, 0])),
        ("bent", of(ALL, &[4, 0, 200, 1, 40, 8, 200, 0, 16, 0])),
        ("cut", of(ALL, &[4, 0, 200, 1, 40, 128, 100])),
        ("none_sent", of([0, 2], &[4, 0, 200, 1, 40, 0])),
    ]
}

/// Images, class states and records, a little changed.
fn restore() -> Vec<Seed> {
    let mut all = Vec::new();
    for which in 0..3 {
        all.push((
            ["image_net", "image_block", "image_entropy"][usize::from(which)],
            vec![1, which, 0, 0],
        ));
        all.push((
            ["state_net", "state_block", "state_entropy"][usize::from(which)],
            vec![4, which, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ));
        all.push((
            ["changed_net", "changed_block", "changed_entropy"][usize::from(which)],
            vec![1, which, 1, 1, 70, 0, 1],
        ));
    }
    all.extend([
        ("image_set_up", vec![1, 0, 2, 0]),
        ("image_of_nothing", vec![1, 0, 3, 0]),
        ("image_cut", vec![1, 0, 0, 5 << 5, 90, 0]),
        (
            "state_cut",
            vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5 << 5, 20, 0],
        ),
        (
            "record_split",
            vec![6, 3, 1, 2, 3, 0, 1, 2, 8, 1, 0, 1, 2, 2, 8, 0, 1, 0, 1],
        ),
        (
            "record_packed",
            vec![7, 7, 1, 2, 3, 0, 1, 2, 8, 1, 0, 1, 2, 2, 8, 0, 1, 0, 1],
        ),
        (
            "record_of_a_death",
            vec![6, 3, 1, 0, 3, 0, 1, 2, 8, 1, 0, 0, 0, 1],
        ),
        (
            "record_changed",
            vec![7, 7, 1, 0, 3, 0, 1, 2, 8, 1, 0, 1, 1, 18, 0, 3, 1],
        ),
        ("record_fresh", vec![6, 3, 0, 0, 1]),
        ("bytes", b"\0vdpa\x01\0\0\0\x54\0\0\0\x01\0\0\0".to_vec()),
    ]);
    all
}

/// Strings as people write them.
fn string() -> Vec<Seed> {
    let text = |text: &str| cat(&[&[0], text.as_bytes()]);
    vec![
        ("net", text("sim:net")),
        (
            "keys",
            text("sim:net,mac=52:54:00:00:00:01,mtu=9000,queue_pairs=4,port=wire:a"),
        ),
        (
            "block",
            text("sim:blk,size=64M,ro=on,blk_size=4096,serial=abc"),
        ),
        ("entropy", text("sim:rng,queue_size=8")),
        ("features", text("sim:net,features=+RSS-MRG_RXBUF")),
        ("listed", text("sim:net,features=VERSION_1+MAC+bit-36")),
        (
            "layers",
            text("sim:blk,fault=kick-lost:0.5+call-lost:3,seed=7,trace=debug"),
        ),
        (
            "a_switch",
            text("sim:net,port=switch:b:7,workers=2,poll_us=0"),
        ),
        ("no_colon", text("sim")),
        ("no_parent", text(":net")),
        ("no_value", text("sim:net,mtu")),
        ("twice", text("sim:net,mtu=1500,mtu=1500")),
        ("unknown_key", text("sim:net,mtuu=1500")),
        ("unknown_parent", text("sym:net")),
        ("out_of_range", text("sim:net,queue_size=65537")),
        ("a_file", text("sim:blk,file=/nowhere")),
        ("not_ascii", text("sim:net,mac=\u{e9}")),
        ("made", vec![1, 0, 0, 1, 5, 4, 3]),
        ("made_of_blocks", vec![1, 0, 1, 13, 17, 16, 4]),
    ]
}
