//! Drivers of slices, and of what is at the other end of the wire.

use std::sync::Arc;
use std::time::Duration;

use vdpa_core::bits::{self, net};
use vdpa_core::config::NetConfig;
use vdpa_core::session::{Completions, Control, Queue, QueueSetup};
use vdpa_core::{Device, Features, QueueIndex, Registry, Session, graph};
use vdpa_mdev::MdevMgmt;
use vdpa_mdev::slice::Slicer;
use vdpa_mem::Deadline;
use vdpa_sim::offload::Header;

/// Long enough for a machine that does other things.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// Simulated devices, and slices of them and of slices.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    registry.add_layer(Arc::new(vdpa_layer::FaultsLayer));
    let others = registry.clone();
    let mdev = Arc::new_cyclic(|own: &std::sync::Weak<MdevMgmt>| {
        let own = own.clone();
        MdevMgmt::new().with_slices(Slicer::new(Box::new(move |spec| {
            let mut registry = others.clone();
            registry.add(own.upgrade().unwrap());
            registry.open_spec(spec)
        })))
    });
    registry.add(mdev);
    registry
}

/// The address that ends so.
pub(crate) fn mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, number]
}

pub(crate) const ALL: [u8; 6] = [0xff; 6];

/// A slice with the address of that number.
pub(crate) fn slice(registry: &Registry, of: &str, number: u8, more: &str) -> Card {
    let spec = format!("mdev:slice,of={of},mac=02:00:00:00:00:{number:02x}{more}");
    Card::up(registry.open(&spec).unwrap())
}

/// A frame of `len` bytes that says who sent it and which it is.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], seq: u32, len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5], &seq.to_be_bytes()].concat();
    let fill = frame.len() as u32;
    frame.extend((fill..len as u32).map(|at| (at.wrapping_mul(31) ^ seq) as u8));
    frame
}

/// The same with a tag.
pub(crate) fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let [a, b] = tag.to_be_bytes();
    [&frame[..12], &[0x81, 0x00, a, b], &frame[12..]].concat()
}

pub(crate) fn seq(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// A network device with a driver: one pair, frames of up to 2036 bytes.
pub(crate) struct Card {
    pub(crate) rx: Queue,
    pub(crate) tx: Queue,
    pub(crate) control: Control,
    done: Completions,
}

/// Bytes of the header before a frame.
const HEADER: usize = 12;

impl Card {
    pub(crate) fn up(device: Device) -> Self {
        let mut card = Self::without_buffers(device, true);
        card.post(256);
        card
    }

    /// The same, which receives nothing before it is told to.
    pub(crate) fn without_buffers(device: Device, packed: bool) -> Self {
        Self::with(device, packed, Features::NONE)
    }

    /// The same, which negotiates these features too.
    pub(crate) fn with(device: Device, packed: bool, more: Features) -> Self {
        let wanted = Features::of(&[
            bits::VERSION_1,
            bits::EVENT_IDX,
            bits::RING_PACKED,
            net::MAC,
            net::MTU,
            net::STATUS,
        ]);
        let wanted = match packed {
            true => wanted,
            false => wanted.difference(bits::RING_PACKED.mask()),
        };
        let wanted = wanted | more;
        let session = Session::open(device, soon()).unwrap();
        let wanted = graph::close_down(session.device_type(), session.acceptable() & wanted);
        let mut session = session.negotiate(wanted).unwrap();
        for q in [0, 1] {
            session
                .queue(QueueIndex::new(q), QueueSetup::default())
                .unwrap();
        }
        let (control, queues) = session.run().unwrap().split();
        let [rx, tx] = queues.try_into().unwrap();
        Self {
            rx,
            tx,
            control,
            done: Completions::new(256),
        }
    }

    /// Gives the device as many buffers, if there are.
    pub(crate) fn post(&mut self, count: usize) {
        for _ in 0..count {
            let Some(lease) = self.rx.lease() else { break };
            self.rx.receive(lease).unwrap();
        }
        self.rx.publish();
    }

    /// Puts a frame in the queue. `false`: it is full.
    pub(crate) fn push(&mut self, frame: &[u8]) -> bool {
        self.push_packet(Header::NONE, frame)
    }

    /// The same, with what there is to be done to it.
    pub(crate) fn push_packet(&mut self, header: Header, frame: &[u8]) -> bool {
        self.reap();
        let Some(lease) = self.tx.lease() else {
            return false;
        };
        self.tx.write(&lease, 0, &[0; HEADER]);
        self.tx.write(&lease, 0, &header.to_bytes());
        self.tx.write(&lease, HEADER, frame);
        self.tx.send(lease, (HEADER + frame.len()) as u32).unwrap();
        true
    }

    fn reap(&mut self) {
        self.tx.poll(&mut self.done).unwrap();
        for done in self.done.drain() {
            self.tx.put(done.lease);
        }
    }

    /// Sends a frame, once there is room.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        while !self.push(frame) {
            self.tx.publish();
            assert!(self.tx.wait(soon()).unwrap(), "nothing is sent");
        }
        self.tx.publish();
    }

    /// What has come by now. Its buffers are the device's again.
    pub(crate) fn poll(&mut self) -> Vec<Vec<u8>> {
        self.rx.poll(&mut self.done).unwrap();
        let mut frames = Vec::new();
        for done in self.done.drain() {
            let mut frame = vec![0; done.len as usize - HEADER];
            self.rx.read(&done.lease, HEADER, &mut frame);
            frames.push(frame);
            self.rx.receive(done.lease).unwrap();
        }
        self.rx.publish();
        frames
    }

    /// Waits for as many frames.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = self.poll();
        while frames.len() < count {
            let there = self.rx.wait(soon()).unwrap();
            assert!(there, "{} of {count} frames came", frames.len());
            frames.extend(self.poll());
        }
        frames
    }

    /// Waits for this frame, and answers with what came before it.
    pub(crate) fn before(&mut self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            for frame in self.receive(1) {
                if frame == last {
                    return frames;
                }
                frames.push(frame);
            }
        }
    }

    pub(crate) fn config(&self) -> NetConfig {
        let mut bytes = [0; NetConfig::SIZE];
        self.control.read_config(0, &mut bytes).unwrap();
        NetConfig::from_bytes(&bytes)
    }

    pub(crate) fn name(&self) -> String {
        self.control.device().info().name.clone()
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        let mut value = None;
        self.control
            .device()
            .stats(&mut |known, count| {
                if known == name {
                    value = Some(count);
                }
            })
            .unwrap();
        value.unwrap_or_else(|| panic!("nothing counts {name}"))
    }

    /// Waits until something is true, which other threads make so.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let by = soon();
        while !done(self) {
            assert!(!by.expired(), "{what}");
            std::thread::yield_now();
        }
    }
}
