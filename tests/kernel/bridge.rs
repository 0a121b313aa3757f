//! Two kernels, each behind a card of its own, and a program that hands frames from driver to driver.
//!
//! ```text
//!   kernel A ─ tapa ─ sim:net ─ NetDriver ─┐ frames with their headers,
//!   kernel B ─ tapb ─ sim:net ─ NetDriver ─┘ up to 64 KiB, checksums partial
//! ```

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use vdpa::Deadline;
use vdpa::core::Device;
use vdpa::net::{Checksum, Frame, NetDriver, OFFLOADS, Setup};

use crate::host::PATIENCE;
use crate::netns::ip;
use crate::streams;

const PORT: u16 = 7000;

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    frames: [u64; 2],
    large: [u64; 2],
    partial: [u64; 2],
}

/// A stream of so many bytes in each direction at the same time.
pub(crate) fn carries(bytes: u64) {
    let device_a = host("tapa", 1);
    let listener = TcpListener::bind(("10.79.0.1", PORT)).unwrap();
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        exchange(stream, [1, 2], bytes);
    });
    // The other kernel: a namespace of its own, since it is another thread.
    let (give, take) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let client = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        give.send(host("tapb", 2)).unwrap();
        wait.recv().unwrap();
        let address = format!("10.79.0.1:{PORT}").parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        exchange(stream, [2, 1], bytes);
    });
    let device_b = take.recv().unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let bridge = {
        let end = Arc::clone(&end);
        thread::spawn(move || bridge([device_a, device_b], &end))
    };
    go.send(()).unwrap();
    client.join().unwrap();
    serving.join().unwrap();
    end.store(true, Ordering::Relaxed);
    let seen = bridge.join().unwrap();
    for way in 0..2 {
        assert!(seen.large[way] > 0 && seen.partial[way] > 0);
        // Far fewer than there are segments on a wire.
        let segments = bytes / 1448;
        assert!(
            seen.frames[way] < segments,
            "{} of {segments}",
            seen.frames[way]
        );
    }
}

/// A card with a tap in this thread's namespace.
fn host(interface: &str, number: u8) -> Device {
    let device = vdpa::open(&format!("sim:net,port=tap:{interface}")).unwrap();
    ip(&format!("addr add 10.79.0.{number}/24 dev {interface}"));
    ip(&format!("link set {interface} up"));
    device
}

/// Sends one stream and receives another.
fn exchange(stream: TcpStream, [ours, theirs]: [u64; 2], bytes: u64) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let writer = stream.try_clone().unwrap();
    let sending = thread::spawn(move || streams::send(writer, ours, bytes));
    streams::receive(stream, theirs, bytes);
    sending.join().unwrap();
}

fn bridge(devices: [Device; 2], end: &AtomicBool) -> Seen {
    let mut drivers =
        devices.map(|device| NetDriver::start(device, &Setup::asking(OFFLOADS)).unwrap());
    let mut seen = Seen::default();
    while !end.load(Ordering::Relaxed) {
        let [a, b] = &mut drivers;
        let moved = forward(a, b, &mut seen, 0) + forward(b, a, &mut seen, 1);
        if moved == 0 {
            a.wait(0, Deadline::after(Duration::from_millis(1)))
                .unwrap();
        }
    }
    for driver in drivers {
        assert_eq!(driver.malformed(), 0);
        driver.stop().unwrap();
    }
    seen
}

/// What has come to `from` goes out by `to`, with what was said about it.
fn forward(from: &mut NetDriver, to: &mut NetDriver, seen: &mut Seen, way: usize) -> usize {
    let mut bytes = Vec::new();
    let each = |frame: &Frame<'_>| {
        frame.copy_to(&mut bytes);
        let mut header = frame.header();
        if header.checksum == Checksum::Verified {
            header.checksum = Checksum::Whole;
        }
        seen.frames[way] += 1;
        seen.large[way] += u64::from(header.segments.is_some());
        let partial = matches!(header.checksum, Checksum::Partial { .. });
        seen.partial[way] += u64::from(partial);
        while !to.push_with(0, &header, &bytes).unwrap() {
            to.publish(0).unwrap();
            thread::yield_now();
        }
    };
    let moved = from.receive(0, each).unwrap();
    to.publish(0).unwrap();
    moved
}
