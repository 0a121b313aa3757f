//! Who knows devices by their names.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::boundary::done;
use crate::device::Device;
use crate::pointer::{GivenUp, given, text};

/// Makes devices by their strings. Devices that are to find each other, as the two ends of "port=wire:NAME" do, are opened
/// from one registry.
pub struct Registry {
    registry: vdpa::Registry,
}

/// Makes a registry. It is freed by vdpa_registry_free().
///
/// registry: where its handle is written
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_registry_new(registry: Option<&mut MaybeUninit<*mut Registry>>) -> c_int {
    done(|| {
        let to = given(registry, "registry")?;
        let registry = vdpa::registry();
        to.write(Box::into_raw(Box::new(Registry { registry })));
        Ok(())
    })
}

/// Frees a registry. Devices that were opened from it stay.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_registry_free(registry: *mut Registry) -> c_int {
    done(|| {
        GivenUp::new(registry, "registry")?.free();
        Ok(())
    })
}

/// Opens the device that a string names: "PARENT:WHAT[,key=value...]", as in "sim:net,mac=52:54:00:00:00:01". What is wrong
/// with a string, and what is legal there, is in the message. The device is let go of by vdpa_device_close(). It takes what
/// the system takes to open the device.
///
/// registry: may be used by several threads at the same time
///
/// device: where its handle is written
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_registry_open(
    registry: Option<&Registry>,
    spec: *const c_char,
    device: Option<&mut MaybeUninit<*mut Device>>,
) -> c_int {
    done(|| {
        let registry = given(registry, "registry")?;
        let (spec, to) = (text(spec, "spec")?, given(device, "device")?);
        let opened = Device::new(registry.registry.open(&spec)?)?;
        to.write(Box::into_raw(Box::new(opened)));
        Ok(())
    })
}

/// Opens a device as vdpa_registry_open() does, from a registry that no other device knows.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_open(
    spec: *const c_char,
    device: Option<&mut MaybeUninit<*mut Device>>,
) -> c_int {
    done(|| {
        let (spec, to) = (text(spec, "spec")?, given(device, "device")?);
        let opened = Device::new(vdpa::open(&spec)?)?;
        to.write(Box::into_raw(Box::new(opened)));
        Ok(())
    })
}
