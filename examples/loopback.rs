//! A network card driven by hand: from a device string to a frame that came back.
//!
//! `vdpa::net::NetDriver` does all of this. Here it is in the open: what a driver is, step by step.

use std::time::Duration;

use vdpa::core::session::{Completions, QueueSetup};
use vdpa::core::{QueueIndex, bits, bits::net};
use vdpa::{Deadline, DeviceType, Session};

/// Receive queue and transmit queue of the first pair.
const RECEIVE: QueueIndex = QueueIndex::new(0);
const TRANSMIT: QueueIndex = QueueIndex::new(1);
/// What stands before every frame, virtio 1.4 §5.1.6.
const HEADER: [u8; 12] = [0; 12];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let by = Deadline::after(Duration::from_secs(5));

    // A device is named by a string. This one is in software: what it is sent it receives.
    let device = vdpa::open("sim:net,mac=52:54:00:00:00:01,port=loopback")?;
    println!(
        "opened     {} ({})",
        device.info().name,
        device.info().device_type
    );

    // The driver takes hold of it: reset, ACKNOWLEDGE, DRIVER.
    let session = Session::open(device, by).map_err(|(_, error)| error)?;
    println!("offered    {}", session.offered().display(DeviceType::Net));

    // It asks for little: packed rings, and the device's address. FEATURES_OK is read back.
    let wanted = bits::VERSION_1 | bits::ACCESS_PLATFORM | bits::RING_PACKED | net::MAC;
    let mut session = session.negotiate(wanted).map_err(|(_, error)| error)?;
    println!("agreed     {}", session.features().display(DeviceType::Net));

    // Each queue gets a ring and buffers, in memory that the device is shown at addresses of its own.
    for queue in [RECEIVE, TRANSMIT] {
        let setup = QueueSetup {
            size: 16,
            buffers: 16,
            ..QueueSetup::default()
        };
        session.queue(queue, setup)?;
    }

    // DRIVER_OK: the device is live. The queues part from the control side, to go to any thread.
    let session = session.run().map_err(|(_, error)| error)?;
    let (control, queues) = session.split();
    let [mut receive, mut transmit] = <[_; 2]>::try_from(queues).map_err(|_| "two queues")?;
    println!("status     {}", control.status()?);

    // A device writes only to buffers that it was given.
    while let Some(buffer) = receive.lease() {
        receive.receive(buffer).map_err(|refused| refused.why)?;
    }
    receive.publish();

    // The frame: to the device's own address, from another, of an experimental type.
    let mut mac = [0; 6];
    control.read_config(0, &mut mac)?;
    let payload = b"\x02\0\0\0\0\x01\x88\xb5hello, this is a driver";
    let frame = [&HEADER[..], &mac, payload].concat();
    let buffer = transmit.lease().ok_or("a fresh queue has buffers")?;
    transmit.write(&buffer, 0, &frame);
    let len = u32::try_from(frame.len())?;
    transmit.send(buffer, len).map_err(|refused| refused.why)?;
    transmit.publish();
    println!("sent       {} bytes", frame.len() - HEADER.len());

    // And back. What arrived lies behind a header as well.
    let mut arrived = Completions::new(16);
    while receive.poll(&mut arrived)? == 0 {
        if !receive.wait(by)? {
            return Err("nothing came back in 5 s".into());
        }
    }
    for done in arrived.drain() {
        let mut bytes = vec![0; done.len as usize];
        receive.read(&done.lease, 0, &mut bytes);
        let bytes = &bytes[HEADER.len()..];
        println!(
            "received   {} bytes: {:?}",
            bytes.len(),
            String::from_utf8_lossy(&bytes[14..])
        );
        assert_eq!(bytes, &frame[HEADER.len()..]);
        receive.put(done.lease);
    }

    // The device is reset, and only then the memory goes.
    drop((receive, transmit));
    control.close(by).map_err(|(_, error)| error)?;
    println!("closed");
    Ok(())
}
