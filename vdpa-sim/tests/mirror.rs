//! Captures of what passes a port, read by a stranger.

#[path = "rig/packets.rs"]
mod packets;
mod rig;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use packets::{TCP4, TCP6, UDP6, dissect, payload};
use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, TsResolution};
use rig::*;
use vdpa_core::ErrorKind;
use vdpa_sim::offload::TRANSMIT;

/// The frames of a capture, each with whether its time is of today, as `pcap-file` reads them.
fn read(capture: impl Read) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(capture).unwrap();
    let header = reader.header();
    assert_eq!(header.datalink, DataLink::ETHERNET);
    assert_eq!(header.ts_resolution, TsResolution::NanoSecond);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let mut frames = Vec::new();
    let mut last = std::time::Duration::ZERO;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        assert!(now.abs_diff(packet.timestamp).as_secs() < 600);
        assert!(packet.timestamp >= last, "one worker: in order");
        last = packet.timestamp;
        assert_eq!(packet.orig_len as usize, packet.data.len());
        frames.push(packet.data.into_owned());
    }
    frames
}

fn card(lab: &Lab, spec: &str) -> Card {
    let rig = lab.open(spec);
    let features = with(&rig, true, true, true, false);
    Card::new(rig, features, 128, 2048)
}

fn drained(card: &mut Card) {
    until("completion", || {
        card.tx.reap();
        card.tx.in_flight() == 0
    });
}

#[test]
fn all_that_is_sent_and_received_is_in_the_file_when_the_device_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let lab = Lab::new();
    let spec = |name: &str| format!("sim:net,port=wire:a,mirror={}", file(name).display());
    let mut a = card(&lab, &spec("a.pcap"));
    let mut b = card(&lab, &spec("b.pcap"));
    let there = frames(2000, 1514);
    let back: Vec<_> = (0..2000)
        .map(|i| frame(100_000 + i, 60 + i % 1000))
        .collect();
    std::thread::scope(|s| {
        let (a, b, there, back) = (&mut a, &mut b, &there, &back);
        s.spawn(move || {
            a.send_all(there);
            a.rx.wait(back.len());
        });
        s.spawn(move || {
            b.send_all(back);
            b.rx.wait(there.len());
        });
    });
    for card in [&mut a, &mut b] {
        drained(card);
        until("the capture", || card.rig.stat("port.mirrored") == 4000);
    }
    assert!(!file("a.pcap").exists(), "whole or not at all");
    a.rig.close();
    b.rig.close();
    for name in ["a.pcap", "b.pcap"] {
        let all = read(File::open(file(name)).unwrap());
        assert_eq!(all.len(), 4000);
        // Each direction in its order.
        let is_back = |frame: &&Vec<u8>| frame.len() >= 60 && back.contains(frame);
        assert!(all.iter().filter(is_back).eq(&back), "{name}");
        assert!(all.iter().filter(|f| !is_back(f)).eq(&there), "{name}");
    }
}

#[test]
fn every_port_has_it_and_what_does_not_pass_is_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.pcap");
    let lab = Lab::new();
    let spec = |port: &str| format!("sim:net,port={port},mirror={}", file.display());
    // Sent, and received again.
    let mut card = card(&lab, &spec("loopback"));
    let sent = frames(300, 1514);
    card.send_all(&sent);
    card.rx.wait(300);
    card.rig.close();
    let all = read(File::open(&file).unwrap());
    assert_eq!(all.len(), 600);
    for frame in &sent {
        assert_eq!(all.iter().filter(|f| *f == frame).count(), 2);
    }
    // Nobody is there.
    for port in ["wire:x", "switch:x:5"] {
        let mut card = self::card(&lab, &spec(port));
        card.send_all(&sent[..10]);
        drained(&mut card);
        card.rig.close();
        assert!(read(File::open(&file).unwrap()).is_empty(), "{port}");
    }
    let mut card = self::card(&lab, &spec("null"));
    card.send_all(&sent[..10]);
    drained(&mut card);
    card.rig.reset();
    card.rig.close();
    assert_eq!(read(File::open(&file).unwrap()), sent[..10]);
}

#[test]
fn what_is_left_undone_is_finished_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.pcap");
    let rig = Lab::new().open(&format!("sim:net,port=null,mirror={}", file.display()));
    let features = with(&rig, false, false, true, false) | TRANSMIT;
    let mut card = Card::new(rig, features, 16, 65_600);
    let long = payload(1, 60_000);
    let packets = [
        TCP4.packet(&long, 1460),
        UDP6.packet(&long, 1000),
        TCP6.partial(&long[..500]),
    ];
    for packet in &packets {
        let mut header = [0; HEADER];
        header[..10].copy_from_slice(&packet.header);
        let sent = card
            .tx
            .send_with([(header, packet.frame.as_slice())].into_iter());
        assert_eq!(sent, 1);
    }
    drained(&mut card);
    card.rig.close();
    let all = read(File::open(&file).unwrap());
    assert_eq!(all.len(), 60_000_usize.div_ceil(1460) + 60 + 1);
    let bytes = |frames: &[Vec<u8>]| -> Vec<u8> {
        frames
            .iter()
            .flat_map(|frame| dissect(frame).payload)
            .collect()
    };
    let (tcp, rest) = all.split_at(60_000_usize.div_ceil(1460));
    assert!(bytes(tcp) == long);
    assert!(bytes(&rest[..60]) == long);
    assert!(bytes(&rest[60..]) == long[..500]);
}

#[test]
fn a_file_that_is_slow_holds_the_device_back_and_nothing_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    // Open already, so that the device finds a reader.
    let mut options = File::options();
    let mut reader = options
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(&pipe)
        .unwrap();
    // Each turn of this thread's empties it once, and on a busy machine it does not get many.
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
    let lab = Lab::new();
    let mut card = card(&lab, &format!("sim:net,mirror={}", pipe.display()));
    let all: Vec<_> = (0..8_000).map(|i| frame(i, 1514)).collect();
    let mut sent = 0;
    let mut same = 0;
    // Until it waits.
    while same < 20 {
        let more = card.tx.send(&all[sent..]);
        sent += more;
        card.rx.poll();
        same = if more == 0 { same + 1 } else { 0 };
        // As long as that on a machine where it would be long until this thread's next turn.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(sent < all.len(), "nobody reads the pipe");
    let mut bytes = Vec::new();
    let mut some = [0; 65_536];
    let mut pump = |bytes: &mut Vec<u8>| {
        while let Ok(len @ 1..) = reader.read(&mut some) {
            bytes.extend(&some[..len]);
        }
    };
    until("the rest", || {
        pump(&mut bytes);
        sent += card.tx.send(&all[sent..]);
        card.rx.poll();
        card.rx.got.len() == all.len()
    });
    assert!(card.rx.got == all);
    std::thread::scope(|s| {
        let closing = s.spawn(|| card.rig.close());
        until("the end", || {
            pump(&mut bytes);
            closing.is_finished()
        });
        pump(&mut bytes);
    });
    let captured = read(bytes.as_slice());
    assert_eq!(captured.len(), 2 * all.len());
    let mut counts = HashMap::new();
    for frame in &captured {
        *counts.entry(frame.as_slice()).or_insert(0) += 1;
    }
    assert!(all.iter().all(|frame| counts[frame.as_slice()] == 2));
}

#[test]
fn a_disk_that_is_full_ends_the_capture_and_not_the_device() {
    let lab = Lab::new();
    let mut card = card(&lab, "sim:net,mirror=/dev/full");
    let all = frames(3000, 1514);
    card.send_all(&all);
    card.rx.wait(all.len());
    assert!(card.rx.got == all);
    drained(&mut card);
    assert!(card.rig.stat("port.mirrored") < 6000);
    card.rig.close();
}

#[test]
fn a_file_that_cannot_be_made_is_named_with_the_reason_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let missing = dir.path().join("no/such/dir/m.pcap");
    let refused = |file: &Path| {
        let spec = format!("sim:net,port=wire:a,mirror={}", file.display());
        let error = lab.registry.open(&spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", reason.unwrap_or_default())
    };
    let why = refused(&missing);
    assert!(why.contains("no/such/dir/m.pcap"), "{why}");
    assert!(why.contains("No such file or directory"), "{why}");
    assert!(refused(dir.path()).contains("not a file name"));
    // Another one's, by whatever name.
    let file = dir.path().join("m.pcap");
    let first = lab.open(&format!("sim:net,mirror={}", file.display()));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for same in [&file, &link.join("m.pcap")] {
        let spec = format!("sim:net,mirror={}", same.display());
        let why = lab.registry.open(&spec).unwrap_err().to_string();
        assert!(why.contains("another device's mirror"), "{why}");
    }
    first.close();
    lab.open(&format!("sim:net,mirror={}", file.display()))
        .close();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(&link).unwrap();
    // The wire's end is free.
    let _a = lab.open("sim:net,port=wire:a");
    let _b = lab.open("sim:net,port=wire:a");
    let left: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_waits_in_the_port_behind_a_capture_moves_with_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.pcap");
    let rig = Lab::new().open(&format!("sim:net,mirror={}", file.display()));
    rig.negotiate(with(&rig, false, true, true, false));
    let _no_buffers = Rx::new(&rig, rig.queue(0, 16), 2048);
    let mut tx = Tx::new(&rig, rig.queue(1, 16), 2048);
    rig.run();
    assert_eq!(tx.send(&frames(10, 1000)), 10);
    until("completion", || {
        tx.reap();
        tx.in_flight() == 0
    });
    rig.device.suspend(soon()).unwrap();
    let state = rig.device.save_class_state().unwrap();
    assert!(state.len() > 10 * 60, "{} bytes", state.len());
    let mark = frames(10, 1000).pop().unwrap();
    assert!(state.windows(mark.len()).any(|bytes| bytes == mark));
}
