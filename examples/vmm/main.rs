//! A virtual machine monitor, as small as it can be: two devices on an MMIO bus, and a guest whose drivers nobody here
//! wrote. There is no hypervisor: the guest runs in this process, in memory of `vm-memory`'s, and reaches its devices as a
//! guest does, by reads and writes of 32-bit registers. What a hypervisor does is little: it writes an eventfd when the
//! notification register is written, and injects an interrupt.
//!
//! `mmio.rs` is the device model, which a VMM has; `guest.rs` the guest's platform.

mod guest;
mod mmio;

use std::error::Error;
use std::time::Duration;

use vdpa::Deadline;
use vdpa::vmm::GuestDevice;
use virtio_drivers::device::{blk::VirtIOBlk, net::TxBuffer, net::VirtIONet};

use guest::{Platform, Registers};
use mmio::Mmio;

const CARD: &str = "sim:net,mac=52:54:00:00:00:01,port=loopback";

fn main() -> Result<(), Box<dyn Error>> {
    let network = plug(CARD)?;
    let disk = plug("sim:blk,size=1M")?;

    // The guest finds a network card, and sends itself a frame.
    let mut card = VirtIONet::<Platform, _, 16>::new(network.clone(), 2048)?;
    let mut frame = card.mac_address().repeat(2);
    frame.extend([0x88, 0xb5]);
    frame.extend(b"from a guest to itself, through a device of the host".repeat(4));
    println!(
        "network    {} bytes sent, and received",
        exchange(&mut card, &frame)?
    );

    // And a disk, which it writes to and reads.
    let mut blocks = VirtIOBlk::<Platform, _>::new(disk.clone())?;
    blocks.write_blocks(7, &[0xab; 1024])?;

    // Meanwhile the machine is paused, and goes on; the guest does not see it.
    disk.vmm()
        .device
        .pause(Deadline::after(Duration::from_secs(5)))?;
    println!(
        "paused     the disk stands at {:?}",
        disk.vmm().device.queue_states()?
    );
    disk.vmm().device.resume()?;

    let mut back = [0; 1024];
    blocks.read_blocks(7, &mut back)?;
    assert_eq!(back, [0xab; 1024]);
    println!(
        "disk       {} sectors, what was written reads back",
        blocks.capacity()
    );

    // The card is moved onto another device, and goes on there.
    network
        .vmm()
        .move_to(GuestDevice::new(vdpa::open(CARD)?)?)?;
    let mut moved = exchange(&mut card, &frame)?;
    moved += exchange(&mut card, &frame)?;
    println!("moved      {moved} bytes more, through another card");
    Ok(())
}

/// Sends a frame to itself, and receives it.
fn exchange(
    card: &mut VirtIONet<Platform, Registers, 16>,
    frame: &[u8],
) -> Result<usize, Box<dyn Error>> {
    card.send(TxBuffer::from(frame))?;
    let by = Deadline::after(Duration::from_secs(5));
    let received = loop {
        match card.receive() {
            Err(virtio_drivers::Error::NotReady) if !by.expired() => std::thread::yield_now(),
            answer => break answer?,
        }
    };
    assert_eq!(received.packet(), frame);
    card.recycle_rx_buffer(received)?;
    Ok(frame.len())
}

/// Puts a device on the bus.
fn plug(spec: &str) -> Result<Registers, Box<dyn Error>> {
    let device = GuestDevice::new(vdpa::open(spec)?)?;
    println!(
        "plugged    {spec}: {} queues",
        device.queue_max_sizes().len()
    );
    Ok(Registers::new(Mmio::new(device, guest::memory())))
}
