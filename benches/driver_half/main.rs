//! How fast is the driver half against the `virtio-drivers` and `virtio-driver` crates?
//!
//! A request as a block driver makes it: a header of 16 bytes and 512 bytes of data for the device to read, a status
//! byte for it to write. Only the driver's work is timed: numbering the header, adding and showing 64 requests, and
//! taking them back with a look at each status. The device between the two is ours in all rows; it checks the number
//! and writes a status made of it. Both peers publish each request on its own, which is what their interfaces do; ours
//! publishes a batch, and in the rows "each shown alone" does as they do.

#[path = "../rig/mod.rs"]
mod rig;

mod virtio_driver;
mod virtio_drivers;

use std::time::Duration;

use rig::clock::Stopwatch;
use rig::contest::{Contest, Measured, Whose};
use rig::queue::{DeviceHalf, DriverHalf, Place, SLOTS, Shape};
use rig::{Run, wrong};
use vdpa_mem::{Bytes, Fault, Iova, Region};
use vdpa_ring::{
    Areas, Batch, Completion, DeviceMem, DriverMem, Format, PackedDevice, PackedDriver, Segment,
    SplitDevice, SplitDriver, Used, area_sizes,
};

/// Requests on their way at a time: three descriptors each, so that all fit the queue.
pub(crate) const REQUESTS: usize = 64;
/// Bytes of a request's header, its number in front.
pub(crate) const HEADER: usize = 16;
/// Bytes of a request's data.
pub(crate) const DATA: usize = 512;

fn main() {
    let run = Run::from_args();
    let title = "driver half, requests of 16 + 512 bytes and a status byte (3 descriptors), queue of 256, 64 at a time, one thread";
    let mut contest = Contest::new(title, "request");
    let split = Shape::new(Format::Split, false);
    let packed = Shape::new(Format::Packed, false);

    let drivers = virtio_drivers::Peer::new();
    contest.row(
        Whose::Peer,
        "virtio-drivers split",
        work::<SplitDevice>(drivers, split),
    );
    let mut translators = virtio_driver::translators();
    for shape in [split, packed] {
        let name = format!("virtio-driver {}", shape.name());
        match translators.as_mut().map(Iterator::next) {
            Ok(Some(translator)) => {
                let peer = virtio_driver::Peer::new(shape.format, translator);
                match shape.format {
                    Format::Split => {
                        contest.row(Whose::Peer, name, work::<SplitDevice>(peer, shape))
                    }
                    Format::Packed => {
                        contest.row(Whose::Peer, name, work::<PackedDevice>(peer, shape))
                    }
                }
            }
            Ok(None) => wrong("a translator is missing"),
            Err(e) => wrong(&format!("{name}: {e}")),
        }
    }
    for alone in [false, true] {
        for shape in Shape::ALL {
            let tail = if alone { ", each shown alone" } else { "" };
            let name = format!("ours {}{tail}", shape.name());
            match shape.format {
                Format::Split => {
                    let driver = Ours::<SplitDriver>::new(shape, alone);
                    contest.row(Whose::Ours, name, work::<SplitDevice>(driver, shape));
                }
                Format::Packed => {
                    let driver = Ours::<PackedDriver>::new(shape, alone);
                    contest.row(Whose::Ours, name, work::<PackedDevice>(driver, shape));
                }
            }
        }
    }
    contest.against("virtio-drivers split");
    contest.against("virtio-driver split");
    contest.against("virtio-driver packed");
    contest.goal("ours split", "virtio-drivers split", 4.0);
    contest.goal("ours split", "virtio-driver split", 4.0);
    contest.goal("ours packed", "virtio-driver packed", 5.0);
    contest.run(&run);
}

/// A driver under test.
pub(crate) trait Driver {
    /// Adds and shows requests number `first` to `first + REQUESTS - 1`.
    fn submit(&mut self, first: u64);
    /// Takes them back; each status is as [`status`] says.
    fn complete(&mut self, first: u64);
    /// Where its queue is: addresses of this process.
    fn place(&self) -> Place;
    /// The memory that all of it is in.
    fn memory(&self) -> &Region;
}

/// The status that the device answers to request `number`.
pub(crate) fn status(number: u64) -> u8 {
    (number % 251) as u8
}

/// Drives `driver` against a device of ours.
fn work<E: DeviceHalf>(mut driver: impl Driver, shape: Shape) -> impl FnMut(Duration) -> Measured {
    let mut device = Device::<E>::new(shape);
    let mut next = 0;
    move |slice| {
        let mut watch = Stopwatch::new();
        let before = next;
        while watch.ns() < slice.as_nanos() as f64 {
            watch.time(|| driver.submit(next));
            device.serve(driver.memory(), driver.place(), next);
            watch.time(|| driver.complete(next));
            next += REQUESTS as u64;
        }
        Measured::new(watch.ns(), next - before)
    }
}

/// The device: addresses are those of this process, all in one region.
struct Device<E> {
    ring: E,
    in_order: bool,
    batch: Batch,
    used: Vec<Used>,
}

impl<E: DeviceHalf> Device<E> {
    fn new(shape: Shape) -> Self {
        Self {
            ring: E::fresh(SLOTS, shape.features()),
            in_order: shape.in_order,
            batch: Batch::new(REQUESTS, usize::from(SLOTS)),
            used: Vec::with_capacity(REQUESTS),
        }
    }

    fn serve(&mut self, memory: &Region, place: Place, first: u64) {
        let memory = Flat::new(memory, place);
        let mut number = first;
        while number < first + REQUESTS as u64 {
            let taken = self.ring.take(&memory, &mut self.batch);
            if taken.unwrap_or_else(|e| wrong(&e.to_string())) == 0 {
                wrong(&format!("request {number} was not shown to the device"));
            }
            self.used.clear();
            for chain in self.batch.iter() {
                let ([header, data], [answer]) = (chain.readable(), chain.writable()) else {
                    wrong("a request is not of three parts");
                };
                let mut bytes = [0; 8];
                memory.at(header.addr, header.len).read(0, &mut bytes);
                if u64::from_le_bytes(bytes) != number || data.len as usize != DATA {
                    wrong(&format!(
                        "request {number} came as {bytes:?}, {} bytes",
                        data.len
                    ));
                }
                memory
                    .at(answer.addr, answer.len)
                    .write(0, &[status(number)]);
                let token = chain.token();
                self.used.push(Used { token, len: 1 });
                number += 1;
            }
            let called = self.ring.commit(&memory, &self.used, self.in_order);
            called.unwrap_or_else(|e| wrong(&e.to_string()));
        }
    }
}

/// A region seen at its addresses in this process.
struct Flat<'m> {
    areas: Areas<Bytes<'m>>,
    memory: Bytes<'m>,
}

impl<'m> Flat<'m> {
    fn new(region: &'m Region, place: Place) -> Self {
        let memory = region.bytes();
        Self {
            areas: place.areas(|at, bytes| span(memory, at, bytes)),
            memory,
        }
    }

    fn at(&self, at: Iova, bytes: u32) -> Bytes<'m> {
        span(self.memory, at, bytes)
    }
}

fn span(memory: Bytes<'_>, at: Iova, bytes: u32) -> Bytes<'_> {
    let offset = at.get().wrapping_sub(memory.hva().get());
    let span = memory.slice(offset as usize, bytes as usize);
    span.unwrap_or_else(|| wrong("an address outside the region"))
}

impl<'m> DeviceMem for Flat<'m> {
    type Ring = Bytes<'m>;

    fn areas(&self) -> &Areas<Bytes<'m>> {
        &self.areas
    }

    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
        Err(Fault::Denied)
    }
}

/// The driver half of this workspace.
struct Ours<D> {
    ring: D,
    region: Region,
    place: Place,
    alone: bool,
    /// Requests not on their way.
    free: Vec<u16>,
    /// The request of each chain on its way.
    owner: Vec<u16>,
    done: Vec<Completion>,
}

/// Bytes from one of our requests to the next: header, status, data.
const PITCH: usize = 64 + DATA;

impl<D: DriverHalf> Ours<D> {
    fn new(shape: Shape, alone: bool) -> Self {
        let sizes = area_sizes(shape.format, SLOTS, true);
        let placed = sizes.placed();
        let region = Region::anonymous(u64::from(placed.bytes) + (REQUESTS * PITCH) as u64);
        let region = region.unwrap_or_else(|e| wrong(&e.to_string()));
        let base = region.bytes().hva().get() + (REQUESTS * PITCH) as u64;
        let place = Place {
            descriptor: (base + u64::from(placed.descriptor), sizes.descriptor.bytes),
            driver: (base + u64::from(placed.driver), sizes.driver.bytes),
            device: (base + u64::from(placed.device), sizes.device.bytes),
        };
        let mut ring = D::fresh(SLOTS, shape.features());
        ring.disarm(&DriverMem::new(Flat::new(&region, place).areas));
        Self {
            ring,
            region,
            place,
            alone,
            free: (0..REQUESTS as u16).rev().collect(),
            owner: vec![0; usize::from(SLOTS)],
            done: vec![Completion::default(); REQUESTS],
        }
    }
}

impl<D: DriverHalf> Driver for Ours<D> {
    fn submit(&mut self, first: u64) {
        let memory = self.region.bytes();
        let mem = DriverMem::new(Flat::new(&self.region, self.place).areas);
        for number in first..first + REQUESTS as u64 {
            let request = self
                .free
                .pop()
                .unwrap_or_else(|| wrong("no request is free"));
            let offset = usize::from(request) * PITCH;
            memory.write(offset, &number.to_le_bytes());
            let at = memory.hva().get() + offset as u64;
            let part = |by: usize, len: usize| Segment {
                addr: Iova::new(at + by as u64),
                len: len as u32,
            };
            let readable = [part(0, HEADER), part(64, DATA)];
            match self.ring.add(&mem, &readable, &[part(HEADER, 1)]) {
                Ok(id) => self.owner[usize::from(id)] = request,
                Err(e) => wrong(&e.to_string()),
            }
            if self.alone {
                std::hint::black_box(self.ring.publish(&mem));
            }
        }
        std::hint::black_box(self.ring.publish(&mem));
    }

    fn complete(&mut self, first: u64) {
        let memory = self.region.bytes();
        let mem = DriverMem::new(Flat::new(&self.region, self.place).areas);
        let mut number = first;
        while number < first + REQUESTS as u64 {
            let taken = self.ring.take_used(&mem, &mut self.done);
            let taken = taken.unwrap_or_else(|e| wrong(&e.to_string()));
            if taken == 0 {
                wrong(&format!("request {number} did not come back"));
            }
            for done in &self.done[..taken] {
                let request = self.owner[usize::from(done.id)];
                let mut answer = [0];
                memory.read(usize::from(request) * PITCH + HEADER, &mut answer);
                if answer[0] != status(number) {
                    wrong(&format!("request {number} was answered {}", answer[0]));
                }
                self.free.push(request);
                number += 1;
            }
        }
    }

    fn place(&self) -> Place {
        self.place
    }

    fn memory(&self) -> &Region {
        &self.region
    }
}
