//! A device that writes what it must not, and the driver's answer.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use vdpa_core::bits::{self, net};
use vdpa_core::{
    Call, CallKind, Caps, Device, DeviceInfo, DeviceType, Doorbell, Error, ErrorKind, Features,
    GroupIndex, Host, Kick, KickKind, QueueConfig, QueueIndex, QueueLimits, Relay, Result, Status,
    VdpaDevice,
};
use vdpa_mem::{Access, Bytes, Fault, Hint, Iova, Section};
use vdpa_ring::{
    Areas, Batch, ChainRef, DeviceMem, Format, RingFeatures, SplitDevice, Used, area_sizes,
};

use super::super::{Checksum, Header, NetDriver, NetError, OFFLOADS, Segmented, Segments, Setup};

/// A network device that does nothing by itself: the test writes what it "received".
struct Puppet {
    info: DeviceInfo,
    offered: Features,
    status: AtomicU8,
    host: OnceLock<Host>,
    receive: Mutex<Option<(SplitDevice, QueueConfig)>>,
    transmit: Mutex<Option<(SplitDevice, QueueConfig)>>,
}

impl Puppet {
    fn new(offered: Features) -> Arc<Self> {
        Arc::new(Self {
            info: DeviceInfo {
                name: "puppet".to_owned(),
                device_type: DeviceType::Net,
                vendor: 0,
                queues: 2,
                groups: 1,
                asids: 1,
                config_size: 0,
                kicks: KickKind::Taken,
                calls: CallKind::Any,
            },
            offered: offered | bits::VERSION_1 | bits::ACCESS_PLATFORM,
            status: AtomicU8::new(0),
            host: OnceLock::new(),
            receive: Mutex::new(None),
            transmit: Mutex::new(None),
        })
    }

    /// Uses the next receive buffer: writes `bytes`, and says that it were `len`.
    fn deliver(&self, bytes: &[u8], len: u32) {
        self.next(&self.receive, |chain, section| {
            let buffer = chain.writable()[0];
            span(section, buffer.addr, buffer.len, Access::DeviceWrites).write(0, bytes);
            len
        });
    }

    /// Takes what is sent next.
    fn sent(&self) -> Vec<u8> {
        let mut sent = Vec::new();
        self.next(&self.transmit, |chain, section| {
            for part in chain.readable() {
                let mut bytes = vec![0; part.len as usize];
                span(section, part.addr, part.len, Access::DeviceReads).read(0, &mut bytes);
                sent.extend(bytes);
            }
            0
        });
        sent
    }

    /// Gives the next chain of a queue back, with the length that `with` answers.
    fn next(
        &self,
        queue: &Mutex<Option<(SplitDevice, QueueConfig)>>,
        with: impl FnOnce(ChainRef<'_>, &Section<'_>) -> u32,
    ) {
        let mut queue = queue.lock().unwrap();
        let (ring, c) = queue.as_mut().unwrap();
        let mut reader = self.host.get().unwrap().spaces[0].reader();
        let section = reader.enter();
        let sizes = area_sizes(Format::Split, c.size, false);
        let at = |at, len, want| span(&section, at, len, want);
        let mem = Mem(Areas {
            descriptor: at(c.descriptor, sizes.descriptor.bytes, Access::DeviceReads),
            driver: at(c.driver, sizes.driver.bytes, Access::DeviceReads),
            device: at(c.device, sizes.device.bytes, Access::DeviceWrites),
        });
        let mut batch = Batch::new(1, 64);
        assert_eq!(ring.take(&mem, &mut batch, 1).unwrap(), 1);
        let chain = batch.chain(0).unwrap();
        let token = chain.token();
        let len = with(chain, &section);
        ring.commit(&mem, &[Used { token, len }]).unwrap();
    }
}

fn span<'s>(section: &'s Section<'_>, at: Iova, len: u32, want: Access) -> Bytes<'s> {
    section
        .translate(at, len, want, &mut Hint::default())
        .unwrap()
}

impl VdpaDevice for Puppet {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn attach(&self, host: Host) -> Result<()> {
        self.host.set(host).map_err(|_| Error::Gone)
    }
    fn caps(&self) -> Caps<'_> {
        Caps::NONE
    }
    fn offered(&self) -> Features {
        self.offered
    }
    fn accept(&self, _: Features) -> Result<()> {
        Ok(())
    }
    fn status(&self) -> Result<Status> {
        Ok(Status::from_bits_retain(
            self.status.load(Ordering::Relaxed),
        ))
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.status.fetch_or(bits.bits(), Ordering::Relaxed);
        Ok(())
    }
    fn begin_reset(&self) -> Result<()> {
        self.status.store(0, Ordering::Relaxed);
        Ok(())
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        Ok(Some(0))
    }
    fn read_config(&self, _: u32, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn write_config(&self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn queue_limits(&self, _: QueueIndex) -> Result<QueueLimits> {
        let group = GroupIndex::new(0);
        Ok(QueueLimits {
            max_size: 16,
            group,
        })
    }
    fn start_queue(&self, q: QueueIndex, c: &QueueConfig, _: Kick, _: Call) -> Result<Doorbell> {
        let ring = SplitDevice::new(c.size, RingFeatures::empty(), None).unwrap();
        let queue = match q.get() {
            0 => &self.receive,
            _ => &self.transmit,
        };
        *queue.lock().unwrap() = Some((ring, *c));
        Ok(Doorbell::NONE)
    }
    fn replace_call(&self, _: QueueIndex, _: Call) -> Result<()> {
        Ok(())
    }
}

struct Mem<'s>(Areas<Bytes<'s>>);

impl<'s> DeviceMem for Mem<'s> {
    type Ring = Bytes<'s>;
    fn areas(&self) -> &Areas<Bytes<'s>> {
        &self.0
    }
    fn table(&self, _: Iova, _: &mut [[u64; 2]]) -> Result<(), Fault> {
        Err(Fault::Denied)
    }
}

fn started(offered: Features) -> (Arc<Puppet>, NetDriver) {
    let puppet = Puppet::new(offered);
    let device = Device::new(puppet.clone(), Relay::new()).unwrap();
    let setup = Setup {
        ask: OFFLOADS,
        ..Setup::default()
    };
    let driver = NetDriver::start(device, &setup).unwrap();
    (puppet, driver)
}

/// A receive header that says that the frame has this many buffers, and the frame's first bytes.
fn begins(buffers: u16) -> [u8; 16] {
    let mut bytes = [7; 16];
    bytes[..10].fill(0);
    bytes[10..12].copy_from_slice(&buffers.to_le_bytes());
    bytes
}

fn lengths(driver: &mut NetDriver) -> std::result::Result<Vec<usize>, NetError> {
    let mut lengths = Vec::new();
    driver.receive(0, |frame| lengths.push(frame.len()))?;
    Ok(lengths)
}

/// virtio 1.4 §5.1.9.2.1: the driver sets `num_buffers` to 0.
#[test]
fn nothing_of_a_large_frame_is_left_in_the_header_of_a_later_one() {
    let (puppet, mut driver) = started(net::CSUM | net::HOST_TSO4);
    let header = Header {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        segments: Some(Segments {
            of: Segmented::TcpV4,
            size: 1000,
            header_len: 54,
            ecn: false,
        }),
    };
    for _ in 0..3 {
        assert!(driver.push_with(0, &header, &[0xff; 20_000]).unwrap());
        driver.publish(0).unwrap();
        let sent = puppet.sent();
        assert_eq!((sent.len(), &sent[10..12]), (20_012, &[0, 0][..]));
    }
    for _ in 0..16 {
        assert_eq!(driver.send(0, [[0xff; 60]]).unwrap(), 1);
    }
    for _ in 0..16 {
        let sent = puppet.sent();
        assert_eq!((sent.len(), &sent[..12]), (72, &[0; 12][..]));
    }
}

#[test]
fn a_number_of_buffers_that_cannot_be_is_refused() {
    for buffers in [0, 17, u16::MAX] {
        let (puppet, mut driver) = started(net::MRG_RXBUF.mask());
        puppet.deliver(&begins(buffers), 16);
        let error = lengths(&mut driver).unwrap_err();
        assert!(
            matches!(error, NetError::FrameBuffers { size: 16, .. }),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::PeerMisbehaved);
    }
}

#[test]
fn without_merging_the_number_of_buffers_is_not_looked_at() {
    let (puppet, mut driver) = started(Features::NONE);
    puppet.deliver(&begins(3), 16);
    assert_eq!(lengths(&mut driver).unwrap(), [4]);
}

#[test]
fn a_buffer_without_room_for_a_header_is_refused() {
    for len in [0, 11] {
        let (puppet, mut driver) = started(net::MRG_RXBUF.mask());
        puppet.deliver(&begins(1), len);
        let error = lengths(&mut driver).unwrap_err();
        assert!(matches!(error, NetError::FrameShort { .. }), "{error}");
    }
}

#[test]
fn a_device_that_is_refused_again_and_again_keeps_its_buffers() {
    let (puppet, mut driver) = started(net::MRG_RXBUF.mask());
    for bad in [begins(0), begins(17)] {
        for _ in 0..16 {
            puppet.deliver(&bad, 16);
            puppet.deliver(&begins(1), 16);
            assert!(lengths(&mut driver).is_err());
        }
    }
    for _ in 0..16 {
        puppet.deliver(&begins(1), 12);
    }
    assert_eq!(lengths(&mut driver).unwrap(), [0; 16]);
}

#[test]
fn a_length_beyond_the_buffer_is_refused() {
    let (puppet, mut driver) = started(net::MRG_RXBUF.mask());
    puppet.deliver(&begins(1), 1 << 20);
    let error = lengths(&mut driver).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerMisbehaved);
}

#[test]
fn a_frame_whose_buffers_come_one_by_one_is_whole_with_the_last() {
    let (puppet, mut driver) = started(net::MRG_RXBUF.mask());
    puppet.deliver(&begins(3), 16);
    assert!(lengths(&mut driver).unwrap().is_empty());
    puppet.deliver(&[8; 20], 20);
    assert!(lengths(&mut driver).unwrap().is_empty());
    puppet.deliver(&[9; 5], 5);
    puppet.deliver(&begins(1), 13);
    let mut frames = Vec::new();
    let mut bytes = Vec::new();
    driver
        .receive(0, |frame| {
            frame.copy_to(&mut bytes);
            frames.push(bytes.clone());
        })
        .unwrap();
    let whole = [&[7; 4][..], &[8; 20], &[9; 5]].concat();
    assert_eq!(frames, [whole, vec![7]]);
    // All buffers are with the device again.
    for _ in 0..16 {
        puppet.deliver(&begins(1), 12);
    }
    assert_eq!(lengths(&mut driver).unwrap(), [0; 16]);
}

/// A frame of 66 bytes behind a header of these first bytes.
fn headed(header: [u8; 10]) -> [u8; 78] {
    let mut bytes = [7; 78];
    bytes[..10].copy_from_slice(&header);
    bytes[10..12].copy_from_slice(&1u16.to_le_bytes());
    bytes
}

#[test]
fn a_header_that_was_not_negotiated_drops_its_frame_and_no_other() {
    let offered = net::GUEST_CSUM | net::GUEST_TSO4 | net::MRG_RXBUF;
    let (puppet, mut driver) = started(offered);
    let tso4 = [1, 1, 54, 0, 4, 0, 34, 0, 16, 0];
    // Right; over IPv6, which was not negotiated; a checksum behind the frame's end; right.
    puppet.deliver(&headed(tso4), 78);
    puppet.deliver(&headed([1, 4, 54, 0, 4, 0, 34, 0, 16, 0]), 78);
    puppet.deliver(&headed([1, 0, 0, 0, 0, 0, 60, 0, 16, 0]), 78);
    puppet.deliver(&headed([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 78);
    let mut headers = Vec::new();
    let each = |frame: &super::super::Frame<'_>| headers.push(frame.header());
    assert_eq!(driver.receive(0, each).unwrap(), 2);
    assert_eq!(driver.malformed(), 2);
    let segments = headers[0].segments.unwrap();
    assert_eq!((segments.of, segments.size), (Segmented::TcpV4, 4));
    assert_eq!(headers[1].checksum, Checksum::Verified);
    // Their buffers are with the device again.
    for _ in 0..16 {
        puppet.deliver(&begins(1), 12);
    }
    assert_eq!(lengths(&mut driver).unwrap(), [0; 16]);
}

#[test]
fn without_offloads_a_header_means_nothing() {
    let (puppet, mut driver) = started(net::MRG_RXBUF.mask());
    puppet.deliver(&headed([7, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), 78);
    let each = |frame: &super::super::Frame<'_>| assert_eq!(frame.header(), Header::NONE);
    assert_eq!(driver.receive(0, each).unwrap(), 1);
}

#[test]
fn a_large_frame_fits_the_buffers_with_and_without_merging() {
    let offered = net::GUEST_CSUM | net::GUEST_TSO4;
    let (_, driver) = started(offered);
    // The puppet's queue has 16 buffers, each with room for the longest there is.
    assert_eq!(driver.frames_in_flight(65_550), 16);
    let (_, driver) = started(offered | net::MRG_RXBUF);
    // All of them together: 4 KiB and a bit.
    assert_eq!(driver.frames_in_flight(65_550), 1);
}

#[test]
fn the_header_is_longer_with_a_hash() {
    let puppet = Puppet::new(net::HASH_REPORT | net::MRG_RXBUF);
    let device = Device::new(puppet.clone(), Relay::new()).unwrap();
    let setup = Setup {
        ask: net::HASH_REPORT.mask(),
        ..Setup::default()
    };
    let mut driver = NetDriver::start(device, &setup).unwrap();
    let mut bytes = [7; 24];
    bytes[..20].fill(0);
    bytes[10] = 1;
    bytes[12..18].copy_from_slice(&[4, 3, 2, 1, 5, 0]);
    puppet.deliver(&bytes, 24);
    let mut got = Vec::new();
    driver
        .receive(0, |frame| {
            let hash = frame.hash().unwrap();
            got.push((frame.len(), hash.value, hash.report));
        })
        .unwrap();
    assert_eq!(got, [(4, 0x0102_0304, 5)]);
    puppet.deliver(&begins(1), 16);
    let error = lengths(&mut driver).unwrap_err().to_string();
    assert!(error.contains("header of 20"), "{error}");
}

#[test]
fn features_that_the_driver_knows_nothing_of_are_refused() {
    let device = Device::new(Puppet::new(Features::NONE), Relay::new()).unwrap();
    let setup = Setup {
        ask: net::RSC_EXT.mask(),
        ..Setup::default()
    };
    let error = NetDriver::start(device, &setup).unwrap_err();
    assert!(error.to_string().contains("RSC_EXT"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Misuse);
}

#[test]
fn a_device_of_another_kind_is_refused() {
    let mut puppet = Puppet::new(Features::NONE);
    Arc::get_mut(&mut puppet).unwrap().info.device_type = DeviceType::Block;
    let device = Device::new(puppet, Relay::new()).unwrap();
    let error = NetDriver::start(device, &Setup::default()).unwrap_err();
    assert!(error.to_string().contains("block"), "{error}");
}
