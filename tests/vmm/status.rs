//! What a device sees of the status byte, and where its rings begin: a parent that is as strict as hardware is.

use std::sync::{Arc, Mutex};

use vdpa::core::{
    Call, CallKind, Caps, DeviceInfo, DeviceType, Doorbell, Features, GroupIndex, Host, Kick,
    KickKind, QueueConfig, QueueIndex, QueueLimits, Relay, Status, VdpaDevice, bits,
};
use vdpa::vmm::{Due, GuestDevice, GuestQueue};
use vdpa::{Device, Error, Result};
use virtio_queue::{Queue, QueueT};

use super::ring::{Ring, memory};
use super::{acked, ignored, open, soon};

/// Refuses whatever is not the next step, and tells what came.
struct Strict {
    info: DeviceInfo,
    told: Arc<Mutex<Vec<String>>>,
    status: Mutex<Status>,
}

impl Strict {
    fn device() -> (GuestDevice, Arc<Mutex<Vec<String>>>) {
        let told = Arc::default();
        let strict = Self {
            info: DeviceInfo {
                name: "strict0".into(),
                device_type: DeviceType::Entropy,
                vendor: 0,
                queues: 1,
                groups: 1,
                asids: 1,
                config_size: 0,
                kicks: KickKind::Given,
                calls: CallKind::Any,
            },
            told: Arc::clone(&told),
            status: Mutex::default(),
        };
        let device = Device::new(Arc::new(strict), Relay::new()).unwrap();
        (GuestDevice::new(device).unwrap(), told)
    }

    fn tell(&self, what: impl Into<String>) {
        self.told.lock().unwrap().push(what.into());
    }
}

impl VdpaDevice for Strict {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn attach(&self, _: Host) -> Result<()> {
        Ok(())
    }
    fn caps(&self) -> Caps<'_> {
        Caps::NONE
    }
    fn offered(&self) -> Features {
        bits::VERSION_1 | bits::ACCESS_PLATFORM
    }
    fn accept(&self, f: Features) -> Result<()> {
        self.tell(format!("accept {}", f.display(DeviceType::Entropy)));
        Ok(())
    }
    fn status(&self) -> Result<Status> {
        Ok(*self.status.lock().unwrap())
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.tell(format!("status {bits}"));
        if bits.iter().count() != 1 {
            return Err(Error::Attr {
                device: "strict0".into(),
                why: "one bit at a time".into(),
            });
        }
        *self.status.lock().unwrap() |= bits;
        Ok(())
    }
    fn begin_reset(&self) -> Result<()> {
        *self.status.lock().unwrap() = Status::empty();
        Ok(())
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        Ok(None)
    }
    fn read_config(&self, _: u32, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
        Ok(QueueLimits {
            max_size: 256,
            group: GroupIndex::new(0),
        })
    }
    fn start_queue(&self, _: QueueIndex, c: &QueueConfig, kick: Kick, _: Call) -> Result<Doorbell> {
        let kick = match kick {
            Kick::Given(_) => "given",
            Kick::Taken => "taken",
        };
        self.tell(format!("queue at {:?}, kick {kick}", c.state));
        Ok(Doorbell::NONE)
    }
    fn replace_call(&self, _: QueueIndex, _: Call) -> Result<()> {
        Ok(())
    }
}

/// What a device has to see, in this order.
const STEPS: [&str; 6] = [
    "status ACKNOWLEDGE",
    "status DRIVER",
    "accept VERSION_1 ACCESS_PLATFORM",
    "status FEATURES_OK",
    "queue at None, kick given",
    "status DRIVER_OK",
];

fn queue() -> GuestQueue {
    GuestQueue::new(0, 16, [0x1000, 0x2000, 0x3000]).kicked_by(super::eventfd())
}

#[test]
fn status_bits_written_all_at_once_reach_the_device_one_at_a_time() {
    let memory = memory();
    // By a VMM that keeps the byte to itself, which is cloud-hypervisor's case.
    let (mut device, told) = Strict::device();
    device.ack_features(device.device_features());
    device
        .activate(&memory, ignored(), vec![queue()], soon())
        .unwrap();
    assert_eq!(*told.lock().unwrap(), STEPS);

    // By a guest that does so.
    let (mut device, told) = Strict::device();
    device.ack_features(device.device_features());
    let due = device.write_status(0x0f).unwrap();
    assert!(matches!(due, Due::Activate), "{due:?}");
    device
        .activate(&memory, ignored(), vec![queue()], soon())
        .unwrap();
    assert_eq!(*told.lock().unwrap(), STEPS);
    assert_eq!(device.status().unwrap(), 0x0f);

    // And by one that does not.
    let (mut device, told) = Strict::device();
    assert!(matches!(device.write_status(0x03).unwrap(), Due::Nothing));
    device.ack_features(device.device_features());
    assert!(matches!(device.write_status(0x0b).unwrap(), Due::Nothing));
    assert_eq!(device.status().unwrap(), 0x0b);
    assert!(matches!(device.write_status(0x0f).unwrap(), Due::Activate));
    device
        .activate(&memory, ignored(), vec![queue()], soon())
        .unwrap();
    assert_eq!(*told.lock().unwrap(), STEPS);
}

#[test]
fn a_guest_that_writes_features_ok_first_is_shown_no_bit_that_it_did_not_set() {
    let (mut device, told) = Strict::device();
    device.ack_features(device.device_features());
    for byte in [0x08, 0x09, 0x0b] {
        assert!(matches!(device.write_status(byte).unwrap(), Due::Nothing));
        assert_eq!(device.status().unwrap(), byte);
    }
    assert_eq!(
        told.lock().unwrap().len(),
        4,
        "three bits, and the features"
    );
}

#[test]
fn any_byte_leaves_the_status_that_the_contract_says() {
    let raw = vdpa::open("sim:rng").unwrap();
    let mut device = open("sim:rng");
    for before in [&[][..], &[0x01], &[0x03], &[0x03, 0x0b], &[0x08], &[0x83]] {
        for byte in 1..=u8::MAX {
            raw.reset(soon()).unwrap();
            raw.accept(bits::VERSION_1 | bits::ACCESS_PLATFORM).unwrap();
            device.reset(soon()).unwrap();
            device.set_acked_features(bits::VERSION_1.mask().low_u64());
            for byte in before {
                let _first = raw.write_status(*byte);
                let _first = device.write_status(*byte);
            }
            let expected = raw.write_status(byte);
            let due = device.write_status(byte);
            let mut status = raw.status().unwrap();
            let case = format!("{before:x?}, then {byte:#x}: {due:?}, {expected:?}");
            assert_eq!(due.is_ok(), expected.is_ok(), "{case}");
            // That bit comes with the activation.
            let is_due = matches!(due, Ok(Due::Activate));
            assert_eq!(is_due, status.contains(Status::DRIVER_OK), "{case}");
            status.remove(Status::DRIVER_OK);
            assert_eq!(device.status().unwrap(), status.bits(), "{case}");
        }
    }
}

#[test]
fn a_ring_base_is_not_what_a_queue_of_before_the_reset_counted_to() {
    let memory = memory();
    let (mut device, told) = Strict::device();
    let mut kept = Queue::new(256).unwrap();
    for round in 0..3_u16 {
        kept.set_next_avail(round * 128);
        kept.set_next_used(round * 128);
        device.ack_features(device.device_features());
        let areas = [0x1000, 0x2000, 0x3000];
        let queue = GuestQueue::new(0, kept.size(), areas).kicked_by(super::eventfd());
        device
            .activate(&memory, ignored(), vec![queue], soon())
            .unwrap();
        assert_eq!(told.lock().unwrap().split_off(0), STEPS);
        device.reset(soon()).unwrap();
    }
}

#[test]
fn buffers_made_available_before_the_device_is_live_are_used_after_each_reset() {
    let memory = memory();
    let mut device = open("sim:rng");
    // What a driver does with a receive queue. Read as where the ring begins, the index would make them all consumed.
    for offered in [1, 16, 64] {
        let mut ring = Ring::new(&memory, 0x1000, 64);
        for _ in 0..offered {
            ring.offer(&[(0x8000, 64, true)]);
        }
        device.ack_features(device.device_features());
        let queues = vec![ring.queue(0)];
        device.activate(&memory, ignored(), queues, soon()).unwrap();
        ring.wait(offered);
        let released = device.reset(soon()).unwrap().unwrap();
        assert_eq!(released.queues[0].index(), 0);
        assert!(!device.is_activated());
        assert_eq!(device.status().unwrap(), 0);
    }
}

#[test]
fn a_guests_reset_gives_back_what_the_activation_was_given() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let ring = Ring::new(&memory, 0x1000, 64);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    assert!(matches!(device.write_status(0x0f).unwrap(), Due::Nothing));
    let Due::Reset(Some(released)) = device.write_status(0).unwrap() else {
        panic!("it was active");
    };
    assert_eq!(released.queues.len(), 1);
    super::until("the reset is complete", || device.status().unwrap() == 0);
    assert_eq!(device.acked_features(), 0, "a driver's choice ends with it");
}

#[test]
fn features_are_acknowledged_by_pages_and_by_words() {
    let mut device = open("sim:net");
    let all = device.device_features();
    let page = |page| device.device_features_page(page);
    assert_eq!(u64::from(page(0)) | u64::from(page(1)) << 32, all);
    assert_eq!(page(2) | page(3) | page(4) | page(u32::MAX), 0);

    // A register that is written again is another choice.
    device.ack_features_page(0, u32::MAX);
    device.ack_features_page(0, 0x20);
    device.ack_features_page(1, 1);
    device.ack_features_page(9, u32::MAX);
    assert_eq!(device.acked_features(), 1 << 32 | 0x20);
    device.negotiate().unwrap();
    assert_ne!(device.status().unwrap() & Status::FEATURES_OK.bits(), 0);

    // A VMM that shifts each page into a word of its own.
    device.reset(soon()).unwrap();
    device.ack_features(0x20);
    device.ack_features(1 << 32);
    assert_eq!(device.acked_features(), 1 << 32 | 0x20);
    device.set_acked_features(1 << 32);
    assert_eq!(device.acked_features(), 1 << 32);
}
