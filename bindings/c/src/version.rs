//! Which version it is.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::ffi::c_char;

/// The first number of the version of this header. While it is 0, a second number that differs is another interface;
/// from 1 on, a first number that differs is. The name that a program is linked with says the same: libvdpa.so.0.1.
pub const VDPA_VERSION_MAJOR: u32 = 0;
/// The second number of the version of this header.
pub const VDPA_VERSION_MINOR: u32 = 1;
/// The third number of the version of this header.
pub const VDPA_VERSION_PATCH: u32 = 0;

/// The header says what the package says.
const _: () = {
    assert!(VDPA_VERSION_MAJOR == number(env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(VDPA_VERSION_MINOR == number(env!("CARGO_PKG_VERSION_MINOR")));
    assert!(VDPA_VERSION_PATCH == number(env!("CARGO_PKG_VERSION_PATCH")));
};

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => u32::MAX,
    }
}

/// The version of the library that is loaded, "0.1.0": a constant string.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
