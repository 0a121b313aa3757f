//! Whatever a front end says over its socket, with whatever descriptors, to a device that is served.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::socket::run(data));
