//! Front ends that say the status, and that translate: what the `vhost` crate's does not. This one is of the same house,
//! message by message.

mod rig;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rig::guest::{AVAIL, DATA, DESCRIPTORS, GPA, Guest, LEN, SIZE, USED, USER};
use rig::{SOON, Served};
use vdpa_vhost_user::payload::{
    Access, Iotlb, IotlbKind, MemoryRegion, VringAddr, VringFd, VringFlags, VringState,
};
use vdpa_vhost_user::{
    BackMessage, Connection, F_PROTOCOL_FEATURES, FromBack, Front, FrontMessage, ProtocolFeatures,
    Reply,
};

const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

fn soon() -> Option<Instant> {
    Instant::now().checked_add(SOON)
}

struct Vmm {
    front: Front,
    channel: FromBack,
    guest: Guest,
}

impl Vmm {
    fn new(served: &Served) -> Self {
        let stream = UnixStream::connect(&served.path).unwrap();
        let mut front = Front::new(Connection::new(stream));
        let (channel, theirs) = FromBack::pair(true).unwrap();
        front.ask(&FrontMessage::SetOwner).unwrap();
        let offered = front.value(&FrontMessage::GetProtocolFeatures).unwrap();
        let offered = ProtocolFeatures::from_bits_retain(offered);
        assert!(offered.contains(ProtocolFeatures::STATUS));
        front
            .ask(&FrontMessage::SetProtocolFeatures(offered))
            .unwrap();
        front.ask(&FrontMessage::SetBackendReqFd(theirs)).unwrap();
        let guest = Guest::new();
        Self {
            front,
            channel,
            guest,
        }
    }

    /// One that translates, and where its guest's memory is for the device: nowhere near the guest's own addresses.
    fn translating(served: &Served) -> (Self, u64) {
        let base = 0xffff_0000_0000;
        let mut vmm = Self::new(served);
        vmm.guest.base = base;
        vmm.tell(&FrontMessage::SetFeatures(
            VERSION_1 | ACCESS_PLATFORM | F_PROTOCOL_FEATURES,
        ));
        (vmm, base)
    }

    fn tell(&mut self, message: &FrontMessage) {
        self.front.ask(message).unwrap();
    }

    fn status(&mut self) -> u8 {
        let status = self.front.value(&FrontMessage::GetStatus).unwrap();
        u8::try_from(status).unwrap()
    }

    fn region(&self) -> (MemoryRegion, OwnedFd) {
        let region = MemoryRegion {
            guest: GPA,
            size: LEN,
            user: USER,
            offset: 0,
        };
        (region, self.guest.file())
    }

    /// All of the queue, with its areas from `base` on.
    fn queue(&mut self, base: u64) {
        let state = |num| VringState { index: 0, num };
        self.tell(&FrontMessage::SetVringNum(state(SIZE.into())));
        self.tell(&FrontMessage::SetVringBase(state(0)));
        self.tell(&FrontMessage::SetVringAddr(VringAddr {
            index: 0,
            flags: VringFlags::empty(),
            descriptor: base + DESCRIPTORS,
            used: base + USED,
            available: base + AVAIL,
            log: 0,
        }));
        let kick = self.guest.kick.try_clone().unwrap();
        self.tell(&FrontMessage::SetVringKick(VringFd {
            index: 0,
            fd: Some(owned(&kick)),
        }));
        let call = self.guest.call.try_clone().unwrap();
        self.tell(&FrontMessage::SetVringCall(VringFd {
            index: 0,
            fd: Some(owned(&call)),
        }));
        self.tell(&FrontMessage::SetVringEnable(state(1)));
    }

    /// The next address that the device asks for.
    fn miss(&mut self) -> Iotlb {
        let told = self.channel.receive(soon()).unwrap();
        let BackMessage::IotlbMsg(asked) = told.message else {
            panic!("not a miss: {told:?}");
        };
        self.channel.answer(told.ticket, &Reply::Done).unwrap();
        assert_eq!(asked.kind, IotlbKind::Miss);
        asked
    }

    /// Answers each miss with one page, until `done`.
    fn translate_until(&mut self, base: u64, mut done: impl FnMut(&Guest) -> bool) {
        let begun = Instant::now();
        while !done(&self.guest) {
            assert!(begun.elapsed() < SOON, "still waiting");
            let wait = Instant::now().checked_add(Duration::from_millis(10));
            let asked = match self.channel.receive(wait) {
                Ok(told) => match told.message {
                    BackMessage::IotlbMsg(asked) => asked,
                    other => panic!("not a miss: {other:?}"),
                },
                Err(vdpa_vhost_user::Error::TimedOut) => continue,
                Err(e) => panic!("{e}"),
            };
            self.update(base, asked.iova & !0xfff, 4096);
        }
    }

    fn update(&mut self, base: u64, iova: u64, size: u64) {
        self.tell(&FrontMessage::IotlbMsg(Iotlb {
            iova,
            size,
            user: USER + (iova - base),
            access: Access::READ | Access::WRITE,
            kind: IotlbKind::Update,
        }));
    }

    fn invalidate(&mut self, iova: u64, size: u64) {
        self.tell(&FrontMessage::IotlbMsg(Iotlb {
            iova,
            size,
            user: 0,
            access: Access::empty(),
            kind: IotlbKind::Invalidate,
        }));
    }
}

fn owned(event: &vmm_sys_util::eventfd::EventFd) -> OwnedFd {
    use std::os::fd::{AsRawFd as _, BorrowedFd};

    let raw = event.as_raw_fd();
    #[allow(unsafe_code, reason = "the eventfd's type lends no descriptor")]
    // SAFETY: it is open as long as `event` is.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    borrowed.try_clone_to_owned().unwrap()
}

#[test]
fn the_device_starts_by_the_status_in_whichever_order_it_is_said() {
    let served = Served::new("sim:blk,size=1M");
    let mut vmm = Vmm::new(&served);
    for round in 0..3 {
        vmm.tell(&FrontMessage::SetFeatures(VERSION_1 | F_PROTOCOL_FEATURES));
        assert_eq!(vmm.status(), 0);
        // As QEMU does.
        vmm.tell(&FrontMessage::SetStatus(FEATURES_OK));
        assert_eq!(vmm.status(), FEATURES_OK);
        vmm.tell(&FrontMessage::SetMemTable(vec![vmm.region()]));
        vmm.queue(USER);
        vmm.guest.submit(0, 0);
        let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        vmm.tell(&FrontMessage::SetStatus(all));
        served.hears("running with 1 queues");
        assert_eq!(vmm.status(), all);
        assert_eq!(vmm.guest.finish(), 0);
        vmm.guest.round(7, round);
        if round == 1 {
            assert_eq!(vmm.front.vring_base(0).unwrap(), 3);
        }
        vmm.tell(&FrontMessage::SetStatus(0));
        served.hears("stopped");
        vmm.guest.clear();
    }
    served.end().unwrap();
}

#[test]
fn a_device_that_is_lost_to_a_bad_ring_says_so_and_starts_anew() {
    let served = Served::new("sim:blk,size=1M");
    let mut vmm = Vmm::new(&served);
    let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    vmm.tell(&FrontMessage::SetFeatures(VERSION_1 | F_PROTOCOL_FEATURES));
    vmm.tell(&FrontMessage::SetMemTable(vec![vmm.region()]));
    vmm.queue(USER);
    vmm.tell(&FrontMessage::SetStatus(all));
    served.hears("running");
    // More available than there is room for.
    let bytes = vmm.guest.window.bytes();
    bytes.store_u16(AVAIL as u32 + 2, 1000);
    vmm.guest.kick.write(1).unwrap();
    served.hears("NeedsReset");
    const NEEDS_RESET: u8 = 0x40;
    assert_eq!(vmm.status(), all | NEEDS_RESET);
    vmm.front.vring_base(0).unwrap();
    vmm.tell(&FrontMessage::SetStatus(0));
    vmm.guest.clear();
    vmm.queue(USER);
    vmm.tell(&FrontMessage::SetStatus(all));
    vmm.guest.round(7, 9);
}

#[test]
fn what_the_device_misses_is_asked_for_and_what_is_taken_back_is_asked_for_again() {
    let served = Served::new("sim:blk,size=1M,page_requests=on");
    let (mut vmm, base) = Vmm::translating(&served);
    let features = VERSION_1 | ACCESS_PLATFORM;
    let offered = vmm.front.value(&FrontMessage::GetFeatures).unwrap();
    assert_eq!(offered & features, features);
    vmm.tell(&FrontMessage::SetMemTable(vec![vmm.region()]));
    vmm.queue(base);
    let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    vmm.tell(&FrontMessage::SetStatus(all));
    served.hears("running");
    vmm.guest.submit(1, 5);
    let first = vmm.miss();
    // Whoever does not answer can stop the queue all the same.
    assert_eq!(vmm.front.vring_base(0).unwrap(), 0);
    vmm.queue(base);
    let again = vmm.miss();
    assert_eq!(first.iova & !0xfff, again.iova & !0xfff);
    vmm.update(base, first.iova & !0xfff, 4096);
    vmm.translate_until(base, |guest| guest.used_index() == 1);
    assert_eq!(vmm.guest.finish(), 0);

    // All of it at once: the data is asked for again, and again.
    for used in 2..6 {
        vmm.invalidate(base + DATA, 512);
        vmm.guest.submit(0, 5);
        vmm.translate_until(base, |guest| guest.used_index() == used);
        assert_eq!(vmm.guest.finish(), 0);
    }
    vmm.invalidate(0, u64::MAX);
    vmm.update(base, base, LEN);
    vmm.guest.round(5, 0x33);
    drop(vmm);
    served.hears("left");
    served.end().unwrap();
}

#[test]
fn a_queue_with_a_record_of_what_is_in_flight_starts_once_its_ring_is_translated() {
    use vdpa_vhost_user::payload::Inflight;

    let served = Served::new("sim:blk,size=1M,page_requests=on");
    let (mut vmm, base) = Vmm::translating(&served);
    let asked = Inflight {
        mmap_size: 0,
        mmap_offset: 0,
        num_queues: 1,
        queue_size: SIZE,
    };
    let made = vmm.front.ask(&FrontMessage::GetInflightFd(asked)).unwrap();
    let Reply::Inflight(made, Some(region)) = made else {
        panic!("no region: {made:?}");
    };
    vmm.tell(&FrontMessage::SetInflightFd(
        made,
        region.try_clone().unwrap(),
    ));
    vmm.tell(&FrontMessage::SetMemTable(vec![vmm.region()]));
    vmm.queue(base);
    let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    vmm.tell(&FrontMessage::SetStatus(all));
    // The parts of the ring, each once, and what was taken back once more.
    for part in [DESCRIPTORS, AVAIL] {
        assert_eq!(vmm.miss().iova, base + part);
        vmm.update(base, base + part, 4096);
    }
    assert_eq!(vmm.miss().iova, base + USED);
    vmm.invalidate(base + AVAIL, 4096);
    assert_eq!(vmm.miss().iova, base + AVAIL);
    vmm.update(base, base + AVAIL, 4096);
    assert_eq!(vmm.miss().iova, base + USED);
    vmm.update(base, base + USED, 4096);
    served.hears("running with 1 queues");
    vmm.guest.submit(1, 5);
    vmm.translate_until(base, |guest| guest.used_index() == 1);
    assert_eq!(vmm.guest.finish(), 0);
    vmm.guest.round(5, 0x44);
    // The same record, and the ring where it stands.
    assert_eq!(vmm.front.vring_base(0).unwrap(), 3);
    vmm.tell(&FrontMessage::SetInflightFd(made, region));
    vmm.invalidate(0, u64::MAX);
    vmm.queue(base);
    vmm.guest.submit(0, 5);
    vmm.translate_until(base, |guest| guest.used_index() == 4);
    assert_eq!(vmm.guest.finish(), 0);
}

/// QEMU on a busy machine: whoever takes translations back there waits for the acknowledgement, and holds up the reading of
/// the channel meanwhile.
#[test]
fn a_front_end_that_does_not_read_its_channel_is_answered_and_reads_it_later() {
    let served = Served::new("sim:blk,size=1M,page_requests=on");
    let (mut vmm, base) = Vmm::translating(&served);
    vmm.tell(&FrontMessage::SetMemTable(vec![vmm.region()]));
    vmm.queue(base);
    let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    vmm.tell(&FrontMessage::SetStatus(all));
    // Each time a part of the ring is asked for anew, far more often than a socket has room for.
    for _ in 0..2000 {
        for part in [DESCRIPTORS, AVAIL] {
            vmm.update(base, base + part, 4096);
        }
        vmm.invalidate(0, u64::MAX);
    }
    vmm.guest.submit(1, 5);
    vmm.translate_until(base, |guest| guest.used_index() == 1);
    assert_eq!(vmm.guest.finish(), 0);
    vmm.guest.round(5, 0x44);
    served.end().unwrap();
}

#[test]
fn a_device_that_waits_for_nothing_offers_no_translation() {
    let served = Served::new("sim:blk,size=1M");
    let mut vmm = Vmm::new(&served);
    let offered = vmm.front.value(&FrontMessage::GetFeatures).unwrap();
    assert_eq!(offered & ACCESS_PLATFORM, 0);
}

#[test]
fn a_change_of_the_configuration_is_told_on_the_channel() {
    use vdpa_core::{Attr, MgmtDevice as _};

    let served = Served::new("sim:blk,size=1M");
    let mut vmm = Vmm::new(&served);
    served.hears("connected");
    served
        .sim
        .dev_set(&served.sim.devices()[0].name, Attr::Capacity(4096))
        .unwrap();
    let told = vmm.channel.receive(soon()).unwrap();
    assert!(matches!(told.message, BackMessage::ConfigChange));
    let capacity = vmm.front.config(0, 8).unwrap();
    assert_eq!(capacity, 4096_u64.to_le_bytes());
}
