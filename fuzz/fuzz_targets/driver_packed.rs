//! A hostile driver against the device half of the packed ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::driver::packed(data));
