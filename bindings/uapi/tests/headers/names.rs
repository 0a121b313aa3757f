//! What the headers name and the table does not.

use std::collections::BTreeSet;

use vdpa_uapi::table::Row;

use crate::sets::Headers;

/// Names that are no numbers, or have none that stays: guards, macros with parameters, what was taken away.
const NOT_NUMBERS: &[&str] = &[
    // Include guards.
    "VHOST_H",
    "VDUSE_H",
    "VIRTIO_PCI_H",
    "LINUX_VDPA_H",
    "IOMMUFD_H",
    // Of the size of the table's own making, by a parameter.
    "VIRTIO_PCI_CONFIG_OFF",
    "VIRTIO_PCI_CONFIG",
    // The number of attributes that this header knows, which grows.
    "VDPA_ATTR_MAX",
    // Taken away by Linux 6.9 at the latest, which gave its number to `VDPA_ATTR_DEV_BLK_CFG_CAPACITY`.
    "VDPA_ATTR_VDPA_DEV_SUPPORTED_FEATURES",
    // Switches for whoever includes the header.
    "VIRTIO_PCI_NO_LEGACY",
    "VIRTIO_PCI_NO_MODERN",
];

/// Structures that are left out, each with a union of structures that cannot be named in C.
const LEFT_OUT: &[&str] = &["virtio_admin_cmd_dev_parts_metadata_result"];

/// Numbers and structures of these headers that no row has.
pub(crate) fn not_in(rows: &[Row], headers: &Headers) -> Vec<String> {
    let mut known: BTreeSet<String> = rows.iter().map(|row| row.expression()).collect();
    known.extend(NOT_NUMBERS.iter().map(|name| (*name).to_owned()));
    known.extend(LEFT_OUT.iter().map(|name| format!("sizeof(struct {name})")));
    let usr = headers
        .root
        .clone()
        .unwrap_or_else(|| "/".into())
        .join("usr/include");
    let files: BTreeSet<_> = rows.iter().map(|row| row.header).collect();
    let mut missing = Vec::new();
    let mut seen = 0;
    for file in files {
        let Ok(text) = std::fs::read_to_string(usr.join(file)) else {
            continue;
        };
        for name in defined(&without_comments(&text)) {
            seen += 1;
            if !known.contains(&name) {
                missing.push(format!("{file}: {name}"));
            }
        }
    }
    println!(
        "{headers}: {seen} names in them, {} of which are not in the table",
        missing.len()
    );
    missing
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        out.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    out + rest
}

/// Names after `#define`, enumerators, and structures with a body.
fn defined(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_enum = false;
    for line in text.lines().map(str::trim) {
        let word = |line: &str| -> String {
            line.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(rest) = line.strip_prefix("#define") {
            let name = word(rest.trim_start());
            names.extend((!name.starts_with('_')).then_some(name));
        } else if line.starts_with("enum ") && line.ends_with('{') {
            in_enum = true;
        } else if line.starts_with('}') {
            in_enum = false;
        } else if let Some(rest) = line.strip_prefix("struct ") {
            let name = word(rest);
            if rest.trim_end() == format!("{name} {{") {
                names.push(format!("sizeof(struct {name})"));
            }
        } else if in_enum {
            let name = word(line);
            names.extend((!name.is_empty()).then_some(name));
        }
    }
    names
}
