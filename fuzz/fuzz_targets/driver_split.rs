//! A hostile driver against the device half of the split ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::driver::split(data));
