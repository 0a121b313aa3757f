//! A device of one's own: a source of entropy (virtio 1.4 §5.4), and a driver that asks it for some.
//!
//! The contract has fourteen methods, and no default that pretends. Here they are a table, and the device is some 70
//! lines with the thread that does what it is for. Checks, waiting and memory are the core's.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::{error::Error as Failure, thread, time::Duration};

use vdpa::core::session::{Completions, QueueSetup};
use vdpa::core::*;
use vdpa::mem::{Access::*, AddressSpace, Bytes, Deadline, Fault, Hint, Iova};
use vdpa::ring::{Areas, Batch, DeviceMem, Format, RingFeatures, SplitDevice, Used, area_sizes};

#[rustfmt::skip]
struct Entropy { info: DeviceInfo, host: OnceLock<Host>, shared: Arc<Shared> }

#[derive(Default)]
#[rustfmt::skip]
struct Shared { status: AtomicU8, stop: AtomicBool, call: CallCell }

#[rustfmt::skip] // The contract as a table.
impl VdpaDevice for Entropy {
    fn info(&self) -> &DeviceInfo { &self.info }
    fn attach(&self, host: Host) -> Result<()> { self.host.set(host).map_err(|_| Error::Gone) }
    fn caps(&self) -> Caps<'_> { Caps::NONE }
    fn offered(&self) -> Features { bits::VERSION_1 | bits::ACCESS_PLATFORM }
    fn accept(&self, _: Features) -> Result<()> { Ok(()) }
    fn add_status(&self, new: Status) -> Result<()> { self.shared.status.fetch_or(new.bits(), SeqCst); Ok(()) }
    fn begin_reset(&self) -> Result<()> { self.shared.stop.store(true, SeqCst); Ok(()) }
    fn status(&self) -> Result<Status> {
        // A reset is complete when the thread has let go of its share: nothing is touched any more.
        if Arc::strong_count(&self.shared) == 1 && self.shared.stop.swap(false, SeqCst) { self.shared.status.store(0, SeqCst); }
        Ok(Status::from_bits_truncate(self.shared.status.load(SeqCst)))
    }
    fn config_generation(&self) -> Result<Option<u32>> { Ok(Some(0)) }
    fn read_config(&self, _: u32, _: &mut [u8]) -> Result<()> { Ok(()) }
    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> { Ok(()) }
    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> { Ok(QueueLimits { max_size: 64, group: GroupIndex::new(0) }) }
    fn replace_call(&self, _: QueueIndex, call: Call) -> Result<()> { self.shared.call.replace(call); Ok(()) }
    fn start_queue(&self, _: QueueIndex, c: &QueueConfig, _: Kick, call: Call) -> Result<Doorbell> {
        let (host, shared, c) = (self.host.get().ok_or(Error::Gone)?.clone(), self.shared.clone(), *c);
        shared.call.replace(call);
        thread::spawn(move || if let Err(e) = serve(&shared, &host.spaces[0], &c) {
            host.events.raise(Event::NeedsReset { queue: None, why: e.to_string() });
        });
        Ok(Doorbell::NONE) // The thread polls.
    }
}

struct Mem<'s>(Areas<Bytes<'s>>);
#[rustfmt::skip]
impl<'s> DeviceMem for Mem<'s> {
    type Ring = Bytes<'s>;
    fn areas(&self) -> &Areas<Bytes<'s>> { &self.0 }
    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> { Err(Fault::Denied) } // Not offered.
}

#[rustfmt::skip]
fn serve(shared: &Shared, space: &AddressSpace, c: &QueueConfig) -> Result<(), Box<dyn Failure>> {
    let sizes = area_sizes(Format::Split, c.size, false);
    let mut ring = SplitDevice::new(c.size, RingFeatures::empty(), c.state)?;
    let (mut reader, mut batch, mut used) = (space.reader(), Batch::new(16, 64), Vec::new());
    let (mut near, mut word) = (Hint::default(), 0x9e37_79b9_7f4a_7c15_u64);
    while !shared.stop.load(SeqCst) {
        thread::sleep(Duration::from_micros(50));
        if shared.status.load(SeqCst) & Status::DRIVER_OK.bits() == 0 { continue; }
        // One section for a batch: what is mapped in it stays so until it ends.
        let section = reader.enter();
        let mut at = |at, len, want| section.translate(at, len, want, &mut near);
        let mem = Mem(Areas {
            descriptor: at(c.descriptor, sizes.descriptor.bytes, DeviceReads)?,
            driver: at(c.driver, sizes.driver.bytes, DeviceReads)?,
            device: at(c.device, sizes.device.bytes, DeviceWrites)?,
        });
        ring.take(&mem, &mut batch, 16)?;
        for chain in batch.iter() {
            // A generator of Knuth's: to look at, and no more. 8 bytes are an answer, whatever room there is.
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let first = chain.writable().first().ok_or("a buffer that cannot be written")?;
            let bytes = at(first.addr, first.len, DeviceWrites)?;
            let len = bytes.write(0, &word.to_be_bytes()) as u32;
            used.push(Used { token: chain.token(), len });
        }
        let call = ring.commit(&mem, &used)?;
        used.clear();
        drop(section);
        if call { shared.call.raise(); }
    }
    Ok(())
}

#[rustfmt::skip]
fn main() -> Result<(), Box<dyn Failure>> {
    let info = DeviceInfo {
        name: "entropy".to_owned(), device_type: DeviceType::Entropy, vendor: 0x1af4, queues: 1, groups: 1, asids: 1,
        config_size: 0, kicks: KickKind::Taken, calls: CallKind::Any,
    };
    let entropy = Entropy { info, host: OnceLock::new(), shared: Arc::default() };
    let device = Device::new(Arc::new(entropy), Relay::new())?;

    // From here on it is a device like any other.
    let by = Deadline::after(Duration::from_secs(5));
    let session = Session::open(device, by).map_err(|(_, e)| e)?;
    let mut session = session.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM).map_err(|(_, e)| e)?;
    session.queue(QueueIndex::new(0), QueueSetup { size: 8, buffers: 8, ..QueueSetup::default() })?;
    let (control, mut queues) = session.run().map_err(|(_, e)| e)?.split();
    let queue = &mut queues[0];
    let buffer = queue.lease().ok_or("no buffer is free")?;
    queue.receive(buffer).map_err(|refused| refused.why)?;
    queue.publish();
    let (mut done, mut bytes) = (Completions::new(1), [0; 8]);
    assert!(queue.wait(by)? && queue.poll(&mut done)? == 1, "an answer within 5 s");
    for answer in done.drain() {
        queue.read(&answer.lease, 0, &mut bytes);
        println!("{} bytes of entropy: {bytes:02x?}", answer.len);
    }
    assert_ne!(bytes, [0; 8]);
    control.close(by).map(drop).map_err(|(_, e)| e.into())
}
