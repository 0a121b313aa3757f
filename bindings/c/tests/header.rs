//! `vdpa.h` is what cbindgen makes of the sources. `WRITE=1` has it written.

use std::fs;
use std::path::Path;

/// In the order in which they stand in the header.
const SOURCES: &[&str] = &[
    "version", "failure", "boundary", "pointer", "registry", "device", "event", "memory", "queue",
    "doorbell",
];

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join("src").join(source).with_extension("rs"));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/vdpa.h");
    let generated = generated();
    if std::env::var_os("WRITE").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    let differs = committed
        .lines()
        .zip(generated.lines())
        .find(|(is, should)| is != should);
    if let Some((is, should)) = differs {
        panic!(
            "vdpa.h says `{is}`, the sources `{should}`: WRITE=1 cargo test -p vdpa-c --test header"
        );
    }
    assert_eq!(
        committed.len(),
        generated.len(),
        "vdpa.h is cut, or goes on"
    );
}

/// A source that is not read would export what the header does not have.
#[test]
fn every_source_that_exports_is_in_the_header() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let exports = fs::read_to_string(&path)
            .unwrap()
            .contains("#[unsafe(no_mangle)]");
        assert!(
            !exports || SOURCES.contains(&name.as_str()),
            "{name} exports, and is not in SOURCES"
        );
    }
}
