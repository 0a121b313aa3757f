//! A hostile device against the driver half of the packed ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::device::packed(data));
