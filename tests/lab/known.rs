//! What QEMU's functions are known not to keep: the lists in `known/`.
//!
//! A line is a statement's number and a reason. The check has to find the fault: one that is gone makes it fail. With a `-`
//! before its number a statement is left out, since QEMU does not survive it.

use std::fmt::Write;
use std::path::Path;

use vdpa_conformance::catalogue;

/// What `vdpactl check` is told by these lists, for a shell.
pub(crate) fn options(lists: &[&str]) -> String {
    let (mut options, mut left_out) = (String::new(), Vec::new());
    for (id, reason) in lists.iter().flat_map(|list| lines(list)) {
        match id.strip_prefix('-') {
            Some(id) => left_out.push(id.parse::<u16>().expect(id)),
            None => write!(options, " --except '{id}={reason}'").unwrap(),
        }
    }
    if !left_out.is_empty() {
        let ids = catalogue().iter().map(|statement| statement.id);
        let tried: Vec<String> = ids
            .filter(|id| !left_out.contains(id))
            .map(|id| id.to_string())
            .collect();
        write!(options, " --only {}", tried.join(",")).unwrap();
    }
    options
}

fn lines(list: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/known");
    let path = path.join(list);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (id, reason) = line
                .split_once(' ')
                .unwrap_or_else(|| panic!("{list}: {line}"));
            assert!(!reason.contains('\''), "{list}: a quotation mark in {line}");
            (id.to_owned(), reason.to_owned())
        })
        .collect()
}
