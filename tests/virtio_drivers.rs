//! Drivers that nobody here wrote (the `virtio-drivers` crate) drive the simulated devices: net, block, rng.
#![cfg(feature = "sim")]

mod stranger;

use std::collections::HashSet;

use stranger::{Contract, Platform, soon, variants};
use vdpa::core::Attr;
use vdpa::{Deadline, Device};
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::device::net::{TxBuffer, VirtIONet};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::InterruptStatus;

type Disk = VirtIOBlk<Platform, Contract>;
type Card = VirtIONet<Platform, Contract, 16>;
type Source = VirtIORng<Platform, Contract>;

/// Bytes that say where they belong.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn open(spec: &str) -> Device {
    vdpa::open(spec).unwrap_or_else(|e| panic!("{spec}: {e}"))
}

/// An image of a mebibyte.
fn image() -> (tempfile::TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.img");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let spec = format!("sim:blk,file={},serial=stranger", path.display());
    (home, spec)
}

#[test]
fn its_block_driver_reads_back_what_it_wrote() {
    let (_home, file) = image();
    let specs = [
        "sim:blk,size=1M,serial=stranger".to_owned(),
        format!("{file},io=uring"),
        format!("{file},io=threads"),
    ];
    for spec in specs {
        for hidden in variants() {
            let mut disk = Disk::new(Contract::new(open(&spec), hidden)).unwrap();
            assert_eq!(disk.capacity(), 2048);
            assert!(!disk.readonly());
            let mut id = [0xff; 20];
            assert_eq!(disk.device_id(&mut id).unwrap(), 8);
            assert_eq!(&id[..9], b"stranger\0");
            for round in 0..50 {
                let sectors = 1 + round % 20;
                let at = (round * 97) % (2048 - sectors);
                let data = pattern(round as u64, sectors * SECTOR_SIZE);
                disk.write_blocks(at, &data).unwrap();
                let mut back = vec![0; data.len()];
                disk.read_blocks(at, &mut back).unwrap();
                assert!(back == data, "{spec}: {sectors} sectors at {at}");
            }
            disk.flush().unwrap();
            let mut beyond = [0; 1024];
            disk.read_blocks(2047, &mut beyond).unwrap_err();
            disk.write_blocks(2048, &beyond).unwrap_err();
            disk.read_blocks(2047, &mut beyond[..512]).unwrap();
        }
    }
}

#[test]
fn its_block_driver_finds_a_disk_that_may_only_be_read() {
    let mut disk = Disk::new(Contract::new(open("sim:blk,ro=on"), variants()[0])).unwrap();
    assert!(disk.readonly());
    let mut data = [1; 512];
    disk.write_blocks(0, &data).unwrap_err();
    disk.read_blocks(0, &mut data).unwrap();
    assert_eq!(data, [0; 512]);
}

#[test]
fn its_transport_is_told_of_another_capacity() {
    let registry = vdpa::registry();
    let device = registry.open("sim:blk,size=1M").unwrap();
    let name = device.info().name.clone();
    let mut disk = Disk::new(Contract::new(device, variants()[0])).unwrap();
    assert!(disk.ack_interrupt().is_empty());
    registry
        .dev_set("sim", &name, Attr::Capacity(4096))
        .unwrap();
    let told = disk.ack_interrupt();
    assert!(told.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT));
    let mut data = pattern(1, 512);
    disk.write_blocks(4095, &data).unwrap();
    data.fill(0);
    disk.read_blocks(4095, &mut data).unwrap();
    assert_eq!(data, pattern(1, 512));
}

#[test]
fn its_network_driver_receives_what_it_sends() {
    for hidden in variants() {
        let device = open("sim:net,mac=52:54:00:00:00:09,port=loopback");
        let mut card = Card::new(Contract::new(device, hidden), 2048).unwrap();
        let mac = [0x52, 0x54, 0, 0, 0, 9];
        assert_eq!(card.mac_address(), mac);
        for round in 0..200_usize {
            let len = 60 + (round * 37) % 1400;
            let mut frame = pattern(round as u64, len);
            frame[..6].copy_from_slice(&mac);
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            card.send(TxBuffer::from(&frame)).unwrap();
            let by: Deadline = soon();
            let got = loop {
                match card.receive() {
                    Ok(got) => break got,
                    Err(virtio_drivers::Error::NotReady) => assert!(!by.expired()),
                    Err(e) => panic!("{e}"),
                }
                std::thread::yield_now();
            };
            assert!(got.packet() == frame, "frame {round} of {len} bytes");
            card.recycle_rx_buffer(got).unwrap();
        }
    }
}

#[test]
fn its_entropy_driver_gets_randomness() {
    for hidden in variants() {
        let device = open("sim:rng");
        let mut source = Source::new(Contract::new(device, hidden)).unwrap();
        let mut seen = HashSet::new();
        for len in [1, 16, 100, 4096] {
            for _ in 0..8 {
                let mut bytes = vec![0; len];
                assert_eq!(source.request_entropy(&mut bytes).unwrap(), len);
                assert!(len < 16 || seen.insert(bytes));
            }
        }
    }
}
