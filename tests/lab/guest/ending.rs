//! Functions that somebody has already, that are taken from who drives them, and that the bus reports to be broken.

use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use vdpa::core::{Event, Events};
use vdpa::net::{NetDriver, Ring, Setup};
use vdpa::{Deadline, Device};

use crate::pair::{PATIENCE, Way};
use crate::{Done, told};

/// Opens a function that is open: by the same management device, and by another, to which the kernel has to say it.
pub(crate) fn twice(name: &str) -> Done {
    let registry = vdpa::registry();
    let first = registry.open(name)?;
    let here = refusal(registry.open(name));
    let elsewhere = refusal(vdpa::open(name));
    close(first)?;
    close(registry.open(name)?)?;
    println!("{}", json!({ "here": here, "elsewhere": elsewhere }));
    Ok(())
}

fn close(device: Device) -> Done {
    let closed = device.close(Deadline::after(PATIENCE));
    closed.map_err(|(_, error)| error.into())
}

fn refusal(opened: vdpa::Result<Device>) -> Option<Value> {
    let error = opened.err()?;
    Some(json!({ "kind": format!("{:?}", error.kind()), "error": told(&error) }))
}

/// A driver sends and receives while its device is deleted; then it is opened again, and works.
pub(crate) fn deleted(name: &str, other: &str) -> Done {
    let registry = vdpa::registry();
    let parent = registry.parent("vfio").ok_or("no parent vfio")?;
    let card =
        || Ok::<_, Box<dyn std::error::Error>>(NetDriver::start(registry.open(name)?, &setup())?);
    let mut left = card()?;
    let mut right = NetDriver::start(vdpa::open(other)?, &setup())?;
    let device = left.control().device().info().name.clone();
    let events = left.control().events()?;
    let by = Deadline::after(PATIENCE);
    let (begun, begins) = mpsc::channel();
    let listed = &*device;
    let (deleted, sent) = thread::scope(|scope| {
        let deleting = scope.spawn(move || {
            // Once the first frames are on their way, or that has failed.
            let _begun = begins.recv();
            parent.dev_del(listed)
        });
        let sent = send_until_gone(&mut left, &mut right, &events, by, || {
            let _deleted = begun.send(());
        });
        drop(begun);
        (deleting.join(), sent)
    });
    deleted.map_err(|_| "dev_del has panicked")??;
    let sent = sent?;
    let status = left.control().device().status();
    let status = status.err().map(|error| format!("{:?}", error.kind()));
    // Nothing is left to be stopped.
    let stopped = left.stop().err().map(|error| told(&error));
    let gone = parent.devices().iter().all(|entry| entry.name != device);

    let mut left = card()?;
    let again = Way::new().until_one_arrives(&mut left, &mut right)?;
    left.stop()?;
    right.stop()?;
    println!(
        "{}",
        json!({ "sent": sent, "status": status, "stopped": stopped, "gone": gone, "again": again })
    );
    Ok(())
}

/// Frames from one card to the other until the first one is told to be gone. How many were sent.
fn send_until_gone(
    left: &mut NetDriver,
    right: &mut NetDriver,
    events: &Events,
    by: Deadline,
    begun: impl Fn(),
) -> Result<u64, Box<dyn std::error::Error>> {
    let frames = [[0x02; 60], [0x04; 60]];
    let mut sent = 0;
    loop {
        while let Some(event) = events.try_next() {
            match event {
                Event::Gone => return Ok(sent),
                Event::Broken { .. } | Event::RemoveRequested => {
                    return Err(format!("{event:?} in place of Gone").into());
                }
                _ => {}
            }
        }
        if by.expired() {
            return Err("no event has told that the device is gone".into());
        }
        // A refusal is told as an event too, which is what is waited for.
        sent += left.send(0, frames).unwrap_or(0) as u64;
        right.receive(0, |_| ())?;
        begun();
    }
}

/// Waits until the bus reports that a function is broken.
pub(crate) fn broken(name: &str) -> Done {
    let card = NetDriver::start(vdpa::open(name)?, &setup())?;
    let events = card.control().events()?;
    println!("@tell driven");
    let by = Deadline::after(3 * PATIENCE);
    let why = loop {
        match events.wait(by)? {
            Some(Event::Broken { why }) => break why,
            Some(_) => {}
            None => return Err("no event has told of an error".into()),
        }
    };
    let stopped = card.stop().err().map(|error| told(&error));
    println!("{}", json!({ "why": why, "stopped": stopped }));
    Ok(())
}

fn setup() -> Setup {
    Setup {
        ring: Ring::Packed,
        ..Setup::default()
    }
}
