//! A job that tests its own recovery: the network card fails on purpose, and everything arrives all the same.
//!
//! Which faults there are is said in the device string, and the seed says which kicks and calls they befall: a run that
//! fails can be repeated. `docs/faults.md` has all kinds.

use std::time::Duration;

use vdpa::core::{Event, Status};
use vdpa::net::{NetDriver, NetError, Setup};
use vdpa::{Deadline, Device};

/// One kick in ten is not heard, and one call in ten; after thirty kicks the card gives up until it is reset. It does
/// not poll, so that it needs its kicks.
const CARD: &str =
    "sim:net,poll_us=0,fault=kick.lost:0.1+call.lost:0.1+device.needs_reset:@30,seed=7";
const FRAMES: u32 = 500;
/// Longer than the card ever takes: who waited so long in vain was not heard.
const PATIENCE: Duration = Duration::from_millis(10);

/// How a driver's life ends.
enum End {
    AllArrived,
    NeedsReset,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut device = vdpa::open(CARD)?;
    let events = device.events()?;
    println!("opened     {CARD}");

    // What the job is about: frames, each to arrive. The driver may change; the count is ours.
    let mut arrived = 0;
    let mut resets = 0;
    loop {
        let mut driver = NetDriver::start(device, &Setup::default())?;
        let end = exchange(&mut driver, &mut arrived)?;
        // Either way the device is reset and comes back, to go on with or to look at.
        device = driver.stop()?;
        match end {
            End::AllArrived => break,
            End::NeedsReset => resets += 1,
        }
        while let Some(event) = events.try_next() {
            if let Event::NeedsReset { why, .. } = event {
                println!("reset      after {arrived} frames: {why}");
            }
        }
    }

    println!("arrived    {arrived} frames, over {resets} reset");
    for (name, times) in faults(&device)? {
        println!("{name:<26} {times} times");
    }
    assert_eq!((arrived, resets), (FRAMES, 1));
    Ok(())
}

/// Sends one frame after the other, each once the one before has come back.
fn exchange(driver: &mut NetDriver, arrived: &mut u32) -> Result<End, NetError> {
    while *arrived < FRAMES {
        driver.send(0, [frame(*arrived)])?;
        while !came_back(driver, *arrived)? {
            // Calls get lost: a wait that ends in vain proves nothing, and the queue is looked at again. Kicks get
            // lost: the card may not know yet.
            if !driver.wait(0, Deadline::after(PATIENCE))? {
                driver.kick(0)?;
            }
            // virtio 1.4 §2.1.1: nothing that is under way can be relied on any more.
            let status = driver.control().status()?;
            if status.contains(Status::DEVICE_NEEDS_RESET) {
                return Ok(End::NeedsReset);
            }
        }
        *arrived += 1;
    }
    Ok(End::AllArrived)
}

/// A frame to everybody, of an experimental type, with its number in it.
fn frame(number: u32) -> Vec<u8> {
    let (to, from) = ([0xff; 6], [2, 0, 0, 0, 0, 1]);
    [&to[..], &from, &[0x88, 0xb5], &number.to_be_bytes()].concat()
}

/// Whether frame `number` has come back by now.
fn came_back(driver: &mut NetDriver, number: u32) -> Result<bool, NetError> {
    let mut is_there = false;
    driver.receive(0, |frame| {
        let mut bytes = Vec::new();
        frame.copy_to(&mut bytes);
        is_there |= bytes.ends_with(&number.to_be_bytes());
    })?;
    Ok(is_there)
}

/// How often each kind of fault was made.
fn faults(device: &Device) -> Result<Vec<(String, u64)>, vdpa::Error> {
    let mut faults = Vec::new();
    device.stats(&mut |name, times| {
        if name.starts_with("fault.") {
            faults.push((name.to_owned(), times));
        }
    })?;
    Ok(faults)
}
