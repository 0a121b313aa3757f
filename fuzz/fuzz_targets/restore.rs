//! States of devices and records of what is in flight, from anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::restore::run(data));
