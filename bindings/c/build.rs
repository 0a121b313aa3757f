//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let part = |name: &str| std::env::var(name).unwrap_or_default();
    let (major, minor) = (
        part("CARGO_PKG_VERSION_MAJOR"),
        part("CARGO_PKG_VERSION_MINOR"),
    );
    // Before 1.0 a minor version may change the interface, so it is part of the name that programs are linked with.
    let soname = match major.as_str() {
        "0" => format!("libvdpa.so.0.{minor}"),
        major => format!("libvdpa.so.{major}"),
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // Devices have threads of their own, which may outlast the last handle by a moment: the code they run stays.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
