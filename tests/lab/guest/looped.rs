//! A network card whose cable comes back to it: it receives what it sends.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use vdpa::Deadline;
use vdpa::net::{NetDriver, Ring, Setup};

use crate::pair::{PATIENCE, WINDOW, Way, seen};
use crate::{Done, told};

/// Sends `frames` frames, and looks at every byte that comes back.
pub(crate) fn exchange(device: &str, ring: Ring, frames: u64) -> Done {
    let mut card = start(device, ring)?;
    let mut way = Way::new();
    while way.next < frames {
        way.come_back(&mut card)?;
    }
    let packed = card.features().contains(vdpa::core::bits::RING_PACKED);
    card.stop()?;
    println!("{}", json!({ "frames": way.next, "packed": packed }));
    Ok(())
}

/// The same until somebody wants the device, or it is gone. It is let go of then, and cannot be opened again.
pub(crate) fn until_removed(device: &str, ring: Ring) -> Done {
    let mut card = start(device, ring)?;
    let events = card.control().events()?;
    let mut way = Way::new();
    let end = loop {
        let came = way.come_back(&mut card);
        if way.next == WINDOW as u64 {
            println!("@tell traffic");
        }
        match (seen(&events), came) {
            (Some(event), _) => break event,
            (None, Err(error)) => break told(&error),
            (None, Ok(())) => {}
        }
    };
    drop(events);
    let stopped = card.stop().map(drop).map_err(|error| told(&error));
    let uuid = device.trim_start_matches("mdev:");
    let by = Deadline::after(PATIENCE);
    while Path::new("/sys/bus/mdev/devices").join(uuid).exists() {
        if by.expired() {
            let what = "was asked for and let go of, and is still there";
            return Err(format!("{device} {what}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let again = vdpa::open(device).map(drop).map_err(|error| told(&error));
    println!(
        "{}",
        json!({ "frames": way.next, "end": end, "stopped": stopped.err(), "again": again.err() })
    );
    Ok(())
}

fn start(device: &str, ring: Ring) -> Result<NetDriver, Box<dyn std::error::Error>> {
    let setup = Setup {
        ring,
        ..Setup::default()
    };
    Ok(NetDriver::start(vdpa::open(device)?, &setup)?)
}
