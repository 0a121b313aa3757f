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
    let header = String::from_utf8(header).unwrap();
    header
        .lines()
        .map(|line| match line.rsplit_once(" -") {
            // A number that C code may put anywhere.
            Some((define, number)) if define.starts_with("#define ") => {
                format!("{define} (-{number})\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

/// What a header says of numbers and of calls, in the words of `abi.txt`: `const NAME VALUE` and `call PROTOTYPE`.
fn numbers_and_calls(header: &str) -> Vec<String> {
    let defines = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "));
    let numbers = defines.filter_map(|define| define.split_once(' '));
    let numbers = numbers.filter(|(name, _)| !name.starts_with("VDPA_VERSION_"));
    let mut found: Vec<String> = numbers
        .map(|(name, value)| {
            let value = value.trim_start_matches('(').trim_end_matches(')');
            let value: i64 = match value.split_once(" << ") {
                Some((one, by)) => one.parse::<i64>().unwrap() << by.parse::<u32>().unwrap(),
                None => value.parse().unwrap(),
            };
            format!("const {name} {value}")
        })
        .collect();
    // What is called back.
    let types = header.lines().filter(|line| line.starts_with("typedef "));
    found.extend(types.map(|line| format!("call {line}")));
    let code: Vec<&str> = header
        .lines()
        .skip_while(|line| *line != "extern \"C\" {")
        .skip(1)
        .filter(|line| !line.starts_with("//") && !line.starts_with('#'))
        .collect();
    let calls = code.join(" ");
    let calls = calls.split_inclusive(';').filter(|call| call.contains('('));
    found.extend(calls.map(|call| {
        let words: Vec<&str> = call.split_whitespace().collect();
        format!("call {}", words.join(" "))
    }));
    found
}

/// A number or the order of two arguments that changes is another interface: programs that were built before would go on with
/// the old one, and nothing else notices.
#[test]
fn numbers_and_calls_are_those_of_abi_txt() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi.txt");
    let listed = fs::read_to_string(path).unwrap();
    let listed = listed
        .lines()
        .filter(|line| line.starts_with("const ") || line.starts_with("call "));
    let listed: Vec<&str> = listed.collect();
    let is = numbers_and_calls(&generated());
    let missing = listed.iter().find(|line| !is.iter().any(|is| is == *line));
    let new = is.iter().find(|is| !listed.contains(&is.as_str()));
    assert_eq!((missing, new), (None, None), "of abi.txt, of the header");
    assert_eq!(is.len(), listed.len(), "a line is there twice");
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
        if path.is_dir() {
            continue;
        }
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
