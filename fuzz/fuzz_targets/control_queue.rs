//! Commands of any kind and layout on a network device's control queue.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::control::run(data));
