//! Control calls of any kind and order on a simulated device of each class.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::setup::run(data));
