//! A hostile device against the driver half of the split ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::device::split(data));
