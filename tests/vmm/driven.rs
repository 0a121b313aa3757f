//! The guest of the example drives network card and disk by registers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::net::{TxBuffer, VirtIONet};
use virtio_drivers::transport::{InterruptStatus, Transport};

use vdpa::core::{Asid, Attr, ErrorKind, Features, bits};
use vdpa::vmm::{GuestDevice, GuestQueue, InterruptKind, Interrupts, Options};

use super::guest::{self, Platform, Registers};
use super::mmio::{CONFIG_CHANGE, Mmio, at};
use super::ring::{Ring, memory};
use super::{acked, eventfd, ignored, open, soon, until, written};

pub(crate) type Card = VirtIONet<Platform, Registers, 16>;

pub(crate) const CARD: &str = "sim:net,mac=52:54:00:00:00:09,port=loopback";

pub(crate) fn plug(device: GuestDevice) -> Registers {
    Registers::new(Mmio::new(device, guest::memory()))
}

/// A frame to the card itself, with a number in it.
pub(crate) fn frame(number: u32, bytes: usize) -> Vec<u8> {
    let mac = [0x52, 0x54, 0, 0, 0, 9];
    let mut frame = [&mac[..], &mac, &[0x88, 0xb5]].concat();
    let body = |i: u32| (i.wrapping_mul(31) ^ number) as u8;
    frame.extend((0..bytes as u32 - 14).map(body));
    frame
}

pub(crate) fn send(card: &mut Card, frame: &[u8]) {
    card.send(TxBuffer::from(frame)).unwrap();
}

pub(crate) fn receive(card: &mut Card) -> Vec<u8> {
    let by = soon();
    let got = loop {
        match card.receive() {
            Ok(got) => break got,
            Err(virtio_drivers::Error::NotReady) => assert!(!by.expired(), "nothing arrives"),
            Err(e) => panic!("{e}"),
        }
        std::thread::yield_now();
    };
    let frame = got.packet().to_vec();
    card.recycle_rx_buffer(got).unwrap();
    frame
}

/// What is kept from the guest: its queue code differs with each.
fn variants() -> [Features; 3] {
    [
        Features::NONE,
        bits::EVENT_IDX.mask(),
        bits::EVENT_IDX | bits::INDIRECT_DESC,
    ]
}

#[test]
fn a_guest_receives_what_it_sends() {
    for hidden in variants() {
        let options = Options::default().hide(hidden);
        let device = GuestDevice::with_options(vdpa::open(CARD).unwrap(), options).unwrap();
        let mut card = Card::new(plug(device), 2048).unwrap();
        assert_eq!(card.mac_address(), [0x52, 0x54, 0, 0, 0, 9]);
        for number in 0..200 {
            let sent = frame(number, 60 + number as usize * 7);
            send(&mut card, &sent);
            assert_eq!(receive(&mut card), sent);
        }
    }
}

#[test]
fn a_guest_reaches_a_function_behind_an_iommu_without_knowing_of_it() {
    // The function takes addresses for physical ones without ACCESS_PLATFORM, which these drivers do not know; it takes no
    // eventfds, and is told of memory.
    let registers = plug(open(&format!("{CARD},as=pci")));
    for number in 0..3 {
        let mut card = Card::new(registers.clone(), 2048).unwrap();
        for number in number..number + 50 {
            let sent = frame(number, 300);
            send(&mut card, &sent);
            assert_eq!(receive(&mut card), sent);
        }
        let mappings = || {
            let vmm = registers.vmm();
            let mappings = vmm.device.dma(Asid::new(0)).unwrap().mappings();
            mappings
                .iter()
                .map(|m| Arc::as_ptr(&m.memory).addr())
                .collect::<Vec<_>>()
        };
        // What is mapped already is not taken from under the device.
        let before = mappings();
        let memory = guest::memory();
        registers
            .vmm()
            .device
            .update_memory(&memory, soon())
            .unwrap();
        assert_eq!(mappings(), before);
        // It has no way to stand still, says so, and runs on.
        let refused = registers.vmm().device.pause(soon()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        assert!(refused.to_string().contains("has no suspend"), "{refused}");
        let sent = frame(number, 100);
        send(&mut card, &sent);
        assert_eq!(receive(&mut card), sent);
        // These take queues back, which takes a pause: the next one begins with a reset.
        std::mem::forget(card);
    }
}

#[test]
fn a_guest_reads_back_what_it_wrote() {
    for hidden in variants() {
        let device = vdpa::open("sim:blk,size=1M").unwrap();
        let device = GuestDevice::with_options(device, Options::default().hide(hidden)).unwrap();
        let mut disk = VirtIOBlk::<Platform, _>::new(plug(device)).unwrap();
        assert_eq!(disk.capacity(), 2048);
        for round in 0..50_usize {
            let data = vec![round as u8; 512 * (1 + round % 8)];
            disk.write_blocks(round * 40, &data).unwrap();
            let mut back = vec![0; data.len()];
            disk.read_blocks(round * 40, &mut back).unwrap();
            assert_eq!(back, data);
        }
    }
}

#[test]
fn a_guest_comes_again_after_its_driver_went() {
    let registers = plug(open(CARD));
    for number in 0..5 {
        let mut card = Card::new(registers.clone(), 2048).unwrap();
        let sent = frame(number, 100);
        send(&mut card, &sent);
        assert_eq!(receive(&mut card), sent);
        // Its driver takes the queues back, and begins with a reset.
        drop(card);
    }
}

#[test]
fn a_change_of_the_configuration_interrupts_the_guest() {
    let registry = vdpa::registry();
    let device = registry.open("sim:blk,size=1M").unwrap();
    let name = device.info().name.clone();
    let mut registers = plug(GuestDevice::new(device).unwrap());
    let _disk = VirtIOBlk::<Platform, _>::new(registers.clone()).unwrap();
    let generation = registers.read(at::CONFIG_GENERATION);
    registry
        .dev_set("sim", &name, Attr::Capacity(4096))
        .unwrap();
    until("the guest is interrupted", || {
        registers.read(at::INTERRUPT_STATUS) & CONFIG_CHANGE != 0
    });
    let told = registers.ack_interrupt();
    assert!(told.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT));
    assert_eq!(registers.read(at::INTERRUPT_STATUS) & CONFIG_CHANGE, 0);
    assert_ne!(registers.read(at::CONFIG_GENERATION), generation);
    assert_eq!(registers.read_config_space::<u64>(0).unwrap(), 4096);
}

#[test]
fn eventfds_are_written_with_no_code_of_the_vmm_in_between() {
    let registry = vdpa::registry();
    let device = registry.open("sim:blk,size=1M").unwrap();
    let name = device.info().name.clone();
    let mut device = GuestDevice::new(device).unwrap();
    device.ack_features(device.device_features());
    let (config, used, kick) = (eventfd(), eventfd(), eventfd());
    let memory = memory();
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let interrupts =
        Interrupts::from_eventfds(config.try_clone().unwrap(), [used.try_clone().unwrap()]);
    let queue = ring.queue(0).kicked_by(kick.try_clone().unwrap());
    device
        .activate(&memory, interrupts, vec![queue], soon())
        .unwrap();
    // A flush: a header that is read, and a status that is written.
    memory_flush(&memory);
    ring.offer(&[(0x8000, 16, false), (0x8010, 1, true)]);
    kick.write(1).unwrap();
    written(&used);
    ring.wait(1);
    registry
        .dev_set("sim", &name, Attr::Capacity(4096))
        .unwrap();
    written(&config);
    // And they come back.
    let released = device.reset(soon()).unwrap().unwrap();
    let back = released.queues[0].kick().unwrap().to_event_fd().unwrap();
    let _kicks = kick.read();
    back.write(3).unwrap();
    assert_eq!(kick.read().unwrap(), 3);
}

fn memory_flush(memory: &vm_memory::GuestMemoryMmap) {
    use vm_memory::{Bytes, GuestAddress};
    memory.write_obj(4_u32, GuestAddress(0x8000)).unwrap();
}

#[test]
fn a_queue_without_an_eventfd_is_kicked_by_its_doorbell() {
    let memory = memory();
    let mut device = acked("sim:rng,poll_us=0");
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    ring.wait(1);
    ring.offer(&[(0x8000, 64, true)]);
    device.doorbell(0).unwrap().clone().ring(0);
    ring.wait(2);
    assert!(device.doorbell_page(0).is_none(), "there are no registers");
    // What is not there is not kicked.
    device.kick(7);
    assert!(device.doorbell(7).is_none());
}

#[test]
fn an_interrupt_that_cannot_be_raised_is_counted() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let interrupts = Interrupts::from_fn(|kind| {
        assert_eq!(kind, InterruptKind::Queue(0));
        Err(std::io::Error::other("no interrupt controller"))
    });
    let queues = vec![ring.queue(0)];
    device
        .activate(&memory, interrupts.clone(), queues, soon())
        .unwrap();
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    until("it is counted", || interrupts.failed() > 0);
}

#[test]
fn a_queue_is_stopped_alone_and_goes_on_where_it_stood() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    for _ in 0..3 {
        ring.offer(&[(0x8000, 64, true)]);
    }
    device.kick(0);
    ring.wait(3);
    let state = device.stop_queue(0, soon()).unwrap();
    assert!(device.doorbell(0).is_none());
    ring.offer(&[(0x8000, 64, true)]);
    let queue: GuestQueue = ring.queue(0).resume_at(state);
    device.start_queue(queue).unwrap();
    device.kick(0);
    ring.wait(4);
    let counters = device.counters().unwrap();
    assert!(!counters.is_empty());
    device
        .close(vdpa::Deadline::after(Duration::from_secs(5)))
        .map_err(|(_, e)| e)
        .unwrap();
}

#[test]
fn a_queue_is_reset_alone_where_the_transport_carries_that_out() {
    let memory = memory();
    let options = Options::default().offer(bits::RING_RESET.mask());
    let device = vdpa::open("sim:rng").unwrap();
    let mut device = GuestDevice::with_options(device, options).unwrap();
    device.ack_features(device.device_features());
    let queues = vec![Ring::new(&memory, 0x1000, 16).queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    for offered in 1..5 {
        device.reset_queue(0, soon()).unwrap();
        let mut ring = Ring::new(&memory, 0x1000, 16);
        for _ in 0..offered {
            ring.offer(&[(0x8000, 64, true)]);
        }
        device.start_queue(ring.queue(0)).unwrap();
        let twice = device.start_queue(ring.queue(0)).unwrap_err().to_string();
        assert_eq!(twice, "queue 0 is given twice");
        device.kick(0);
        ring.wait(offered);
    }
}

#[test]
fn interrupts_are_replaced_while_the_device_runs() {
    let memory = memory();
    let mut device = acked("sim:rng");
    let mut ring = Ring::new(&memory, 0x1000, 16);
    let queues = vec![ring.queue(0)];
    device.activate(&memory, ignored(), queues, soon()).unwrap();
    let none = device
        .replace_interrupts(Interrupts::none())
        .unwrap_err()
        .to_string();
    assert!(none.starts_with("queue 0 has no interrupt"), "{none}");
    let raised = Arc::new(AtomicU32::new(0));
    let interrupts = Interrupts::from_fn({
        let raised = Arc::clone(&raised);
        move |_| {
            raised.fetch_add(1, SeqCst);
            Ok(())
        }
    });
    device.replace_interrupts(interrupts).unwrap();
    assert_eq!(
        raised.load(SeqCst),
        1,
        "the old one may have been raised to nobody's notice"
    );
    ring.offer(&[(0x8000, 64, true)]);
    device.kick(0);
    until("the new one is raised", || raised.load(SeqCst) == 2);
}
