//! Packets with any header, sent and taken on by a driver with any offloads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vdpa_fuzz::net::run(data));
