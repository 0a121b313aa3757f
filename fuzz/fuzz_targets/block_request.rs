//! Requests of any kind and layout on a disk, against a model of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::block::run(data));
