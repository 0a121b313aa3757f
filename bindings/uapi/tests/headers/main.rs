//! Every number, size and offset of the crate, held to the kernel's headers by a C compiler.
//!
//! ```text
//!   table ─▶ one line of C a row ─▶ cc ─▶ rows that do not compile: the header has no such name
//!                                    └──▶ program ─▶ what each is ─▶ compared
//! ```
//! Headers are the system's, and those that `tests/headers/fetch` has unpacked: an old release's, and the newest there
//! are. What a header is too old for is listed, and has to be newer by what the table says.

mod compiler;
mod names;
mod sets;

use vdpa_uapi::table::{self, Row, Value};

use compiler::Found;
use sets::Headers;

/// The Linux of which every name is in the table. Newer names in newer headers are told, and no fault; a row that came later
/// than this raises it.
const COMPLETE: (u32, u32) = (7, 2);

/// How the rows stand to one set of headers.
#[derive(Default, Debug)]
struct Verdict {
    /// As the table has them.
    same: usize,
    /// Not there, since the header is older.
    lacking: Vec<String>,
    /// There, of another size or at another place, since the header is older.
    older: Vec<String>,
    /// There, though the table says that this came later.
    early: Vec<String>,
    /// Not as the table has them.
    wrong: Vec<String>,
    /// Not there, and they have to be.
    unknown: Vec<String>,
}

fn rows() -> Vec<Row> {
    table::all().copied().collect()
}

/// `6.12` as two numbers that can be compared.
fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

fn judge(rows: &[Row], found: &[Found], headers: &Headers) -> Verdict {
    let mut verdict = Verdict::default();
    for (row, found) in rows.iter().zip(found) {
        let name = row.expression();
        let newer = release(row.since) > headers.release;
        let same = match (found, row.value) {
            (Found::Number(number), Value::Number(value)) => *number == value,
            (Found::Text(text), Value::Text(value)) => text == value,
            (Found::Missing, _) if newer => {
                verdict.lacking.push(name);
                continue;
            }
            (Found::Missing, _) => {
                verdict.unknown.push(name);
                continue;
            }
            _ => false,
        };
        match (same, newer) {
            (true, false) => verdict.same += 1,
            // A field that came later may lie where, and be as long as, what was reserved before.
            (true, true) if name.contains('(') => verdict.same += 1,
            (true, true) => verdict.early.push(name),
            (false, true) if name.contains('(') => verdict.older.push(name),
            (false, _) => {
                let line = format!(
                    "{name}: {:?} in the table, {found:?} in {}",
                    row.value, row.header
                );
                verdict.wrong.push(line);
            }
        }
    }
    verdict
}

#[test]
fn every_number_is_the_headers() {
    let rows = rows();
    for headers in sets::all("every_number_is_the_headers") {
        let found = compiler::ask(&rows, &headers);
        let verdict = judge(&rows, &found, &headers);
        println!(
            "{headers}: {} of {} rows as in the table, {} that it is too old for, {} with an older layout, {} taken over",
            verdict.same,
            rows.len(),
            verdict.lacking.len(),
            verdict.older.len(),
            verdict.early.len(),
        );
        for line in verdict.lacking.iter().filter(|line| !line.contains('(')) {
            println!("  too old for {line}");
        }
        assert!(verdict.wrong.is_empty(), "{headers}: {:#?}", verdict.wrong);
        assert!(
            verdict.unknown.is_empty(),
            "{headers}: not there: {:#?}",
            verdict.unknown
        );
        // By a stable release, or a vendor.
        for line in &verdict.early {
            println!("  taken over: {line}");
        }
        // A good part of it: a compiler that finds nothing would agree with everything.
        assert!(verdict.same * 4 > rows.len(), "{headers}: {verdict:#?}");
    }
}

/// What no header has that can be had is no name of the kernel's, whatever the table says of its age.
#[test]
fn newest_headers_know_every_name() {
    let name = "newest_headers_know_every_name";
    let rows = rows();
    let late: Vec<_> = rows
        .iter()
        .filter(|row| release(row.since) > COMPLETE)
        .collect();
    assert!(late.is_empty(), "later than {COMPLETE:?}: {late:#?}");
    let newest = sets::all(name)
        .pop()
        .filter(|set| set.fetched || set.release >= COMPLETE);
    let Some(headers) = newest else {
        println!(
            "SKIP {name}: not installed: the newest kernel headers (bindings/uapi/tests/headers/fetch)"
        );
        return;
    };
    let verdict = judge(&rows, &compiler::ask(&rows, &headers), &headers);
    assert_eq!(verdict.same, rows.len(), "{headers}: {verdict:#?}");
}

#[test]
fn every_name_of_the_headers_is_in_the_table() {
    for headers in sets::all("every_name_of_the_headers_is_in_the_table") {
        let missing = names::not_in(&rows(), &headers);
        if headers.release > COMPLETE {
            println!("{headers}: newer than the table: {missing:#?}");
        } else {
            assert!(
                missing.is_empty(),
                "{headers}: not in the table: {missing:#?}"
            );
        }
    }
}

/// Each row in turn would be found out if its number were another.
#[test]
fn wrong_number_behind_a_right_name_is_found() {
    let Some(headers) = sets::all("wrong_number_behind_a_right_name_is_found").pop() else {
        return;
    };
    let rows = rows();
    let found = compiler::ask(&rows, &headers);
    let right = judge(&rows, &found, &headers).same;
    let mut wrong = rows.clone();
    for row in &mut wrong {
        row.value = match row.value {
            Value::Number(number) => Value::Number(number ^ 1),
            Value::Text(_) => Value::Text("virtio"),
        };
    }
    let verdict = judge(&wrong, &found, &headers);
    assert_eq!(verdict.same, 0, "{headers}: {verdict:#?}");
    assert!(
        verdict.wrong.len() + verdict.older.len() >= right,
        "{headers}: {right} were right"
    );

    // And by the whole way, the compiler included.
    let row = |raw, number| Row {
        header: "linux/vhost.h",
        since: "5.7",
        raw,
        value: Value::Number(number),
    };
    let strange = [
        row("VHOST_VDPA_SUSPEND", 0xaf7d),
        row("VHOST_VDPA_SET_STATUS", 0x8001_af72),
        row("VHOST_VDPA_NO_SUCH_CALL", 1),
        row("sizeof(struct vhost_vring_state)", 12),
        row("offsetof(struct vhost_vring_addr, no_such_field)", 8),
    ];
    let verdict = judge(&strange, &compiler::ask(&strange, &headers), &headers);
    assert_eq!(
        (verdict.same, verdict.wrong.len(), verdict.unknown.len()),
        (1, 2, 2),
        "{verdict:#?}"
    );
}

/// A constant or a structure can come in by the table alone.
#[test]
fn nothing_public_stands_beside_the_table() {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![src.clone()];
    let mut read = 0;
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            read += 1;
            if path == src.join("table.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                let stray = line.starts_with("pub const ") && !line.starts_with("pub const fn ");
                assert!(
                    !stray && !line.starts_with("#[repr(C"),
                    "{}:{}: by `table!` only: {line}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
    assert!(read > 10, "{read} files");
}
