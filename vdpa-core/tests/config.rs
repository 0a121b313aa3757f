//! The configuration of a device without a generation: read until two reads agree.
#![cfg(not(loom))]

mod tiny;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tiny::*;
use vdpa_core::*;

/// A device that changes its configuration after each of so many reads, and the counter of its reads.
fn ageless(restless: u32) -> (Device, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let (_, device) = open(Tiny {
        ageless: true,
        restless: restless.into(),
        before: Mutex::new(Some(Box::new(move |call| {
            if call == "read_config" {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }))),
        ..Tiny::default()
    });
    assert_eq!(device.config_generation().unwrap(), None);
    (device, reads)
}

#[test]
fn two_reads_that_agree_are_the_configuration() {
    let (device, reads) = ageless(0);
    let mut read = [0xff; 8];
    device.read_config(0, &mut read).unwrap();
    assert_eq!((read, reads.load(Ordering::SeqCst)), ([0; 8], 2));
}

#[test]
fn a_configuration_that_changes_between_two_reads_is_read_again() {
    let (device, reads) = ageless(3);
    let mut read = [0xff; 4];
    device.read_config(4, &mut read).unwrap();
    // As it was before, after each change, and once more.
    assert_eq!((read, reads.load(Ordering::SeqCst)), ([3; 4], 5));
}

#[test]
fn a_configuration_that_never_stands_still_is_an_error_in_the_end() {
    let (device, reads) = ageless(u32::MAX);
    let error = device.read_config(0, &mut [0; 8]).unwrap_err();
    let Error::ConfigUnstable { tries } = error else {
        panic!("{error}");
    };
    assert_eq!(reads.load(Ordering::SeqCst), tries as usize);
}

#[test]
fn a_generation_is_the_devices_own() {
    let (_, device) = open(Tiny {
        restless: 1.into(),
        ..Tiny::default()
    });
    assert_eq!(device.config_generation().unwrap(), Some(0));
    let mut read = [0; 8];
    device.read_config(0, &mut read).unwrap();
    assert_eq!(device.config_generation().unwrap(), Some(1));
}
