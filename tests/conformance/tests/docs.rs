//! What the suite writes into the documents: the list of statements, what came of each on the simulated devices, and what
//! each parent can do.
//!
//! `WRITE_DOCS=1 cargo test -p vdpa-conformance --test docs` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vdpa_conformance::{Chapter, Effort, Outcome, Report, Selection, Statement, Target, catalogue};
use vdpa_core::{DeviceSpec, Registry};
use vdpa_pci::PciParent;

/// The devices of `docs/spec-coverage.md`.
const JUDGED: [&str; 6] = [
    "sim:net",
    "sim:blk",
    "sim:rng",
    "sim:net,as=pci",
    "sim:blk,as=pci,layout=shared-memory",
    "sim:net,as=pf",
];
/// The rows of the README's table.
const PARENTS: [&str; 5] = [
    "sim:net",
    "sim:blk",
    "sim:rng",
    "sim:net,page_requests=on",
    "sim:net,as=pci",
];

/// Around the list in `docs/conformance.md`.
const BEGIN: &str = "<!-- statements: written by tests/conformance/tests/docs.rs -->\n";
const END: &str = "<!-- end of statements -->\n";
/// The line before the table in the README, which ends with an empty line.
const CAPABILITIES: &str = "What each parent can do:\n\n";

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add(Arc::new(vdpa_sim::SimMgmt::new()));
    registry
}

/// With its registers, where it shows them.
fn target(spec: &str) -> Target {
    let parent = Arc::new(vdpa_sim::SimMgmt::new());
    let mut registry = Registry::new();
    registry.add(parent.clone());
    let target = Target::named(&registry, spec).expect(spec);
    let parsed = DeviceSpec::parse(spec).expect(spec);
    if parent.function(&parsed).is_err() {
        return target;
    }
    let (what, members) = (parsed.what().to_owned(), parent.clone());
    let target = target.with_function(move || parent.function(&parsed));
    if !spec.contains("as=pf") {
        return target;
    }
    target.with_members(move |owner, number| {
        let spec = format!("sim:{what},as=vf,of={owner},number={number}");
        members.function(&DeviceSpec::parse(&spec)?)
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a document with what it should be, or makes it that.
fn keep(name: &str, wanted: &str) {
    let path = root().join(name);
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    if is == wanted {
        return;
    }
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let mut lines = is.lines().zip(wanted.lines()).enumerate();
    let differs = lines.find(|(_, (is, wanted))| is != wanted);
    let first = match differs {
        Some((at, (is, wanted))) => format!("line {}:\n- {is}\n+ {wanted}", at + 1),
        None => format!("{} bytes where {} belong", is.len(), wanted.len()),
    };
    panic!(
        "{name} is stale: WRITE_DOCS=1 cargo test -p vdpa-conformance --test docs writes it anew\n{first}"
    );
}

/// `text` with what is between the first `begin` and the next `end` replaced.
fn with_section(text: &str, begin: &str, end: &str, section: &str) -> String {
    let (head, rest) = text.split_once(begin).expect(begin);
    let (_, tail) = rest.split_once(end).expect(end);
    format!("{head}{begin}{section}{end}{tail}")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect(name)
}

/// What would end a cell of a table ends none.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_list_is_the_catalogue() {
    let mut list = String::new();
    for chapter in Chapter::ALL {
        let of = |statement: &&Statement| statement.chapter == *chapter;
        writeln!(list, "\n### {}\n", chapter.title()).unwrap();
        list.push_str("| | | clause | statement |\n|---|---|---|---|\n");
        for Statement {
            id,
            kind,
            clause,
            text,
            ..
        } in catalogue().iter().filter(of)
        {
            let (kind, text) = (kind.letter(), cell(text));
            writeln!(list, "| {id} | {kind} | {clause} | {text} |").unwrap();
        }
    }
    list.push('\n');
    let name = "docs/conformance.md";
    keep(name, &with_section(&read(name), BEGIN, END, &list));
}

#[test]
fn the_readme_says_what_each_parent_can_do() {
    let registry = registry();
    let caps: Vec<Vec<&str>> = PARENTS
        .iter()
        .map(|spec| registry.open(spec).expect(spec).cap_names())
        .collect();
    // The order of the one that has most; what only others have comes behind.
    let mut columns = caps.iter().max_by_key(|names| names.len()).unwrap().clone();
    for name in caps.iter().flatten() {
        if !columns.contains(name) {
            columns.push(name);
        }
    }
    let mut table = format!("| parent | {} |\n", columns.join(" | "));
    writeln!(table, "|---{}|", "|---".repeat(columns.len())).unwrap();
    for (spec, names) in PARENTS.iter().zip(&caps) {
        write!(table, "| `{spec}` |").unwrap();
        for column in &columns {
            let yes = if names.contains(column) {
                " yes |"
            } else {
                " |"
            };
            table.push_str(yes);
        }
        table.push('\n');
    }
    let readme = read("README.md");
    let table = table.trim_end();
    keep(
        "README.md",
        &with_section(&readme, CAPABILITIES, "\n\n", table),
    );
}

/// What came of a statement, all ring variants together.
fn result(report: &Report, id: u16) -> String {
    let rows = || report.rows.iter().filter(|row| row.statement.id == id);
    let find = |word: &str| rows().find(|row| row.outcome.word() == word);
    for word in ["failed", "excepted"] {
        if let Some(row) = find(word) {
            return format!("{word}: {}", row.outcome.reason());
        }
    }
    if find("passed").is_some() {
        return "passed".to_owned();
    }
    rows()
        .next()
        .map_or_else(String::new, |row| match &row.outcome {
            Outcome::Skipped { reason } if reason.starts_with("needs ") => reason.clone(),
            outcome => format!("{}: {}", outcome.word(), outcome.reason()),
        })
}

/// Clauses in the order of their numbers; what is not of the specification comes last.
fn place(clause: &str) -> (bool, Vec<u32>) {
    let numbers: Vec<_> = clause
        .split(['.', ' '])
        .map_while(|part| part.parse().ok())
        .collect();
    (numbers.is_empty(), numbers)
}

fn coverage(reports: &[Report]) -> String {
    let mut page = String::from(
        "# What of the specification is held to\n\n\
        Written by the [conformance suite](conformance.md), which fails when it is not up to date:\n\
        `WRITE_DOCS=1 cargo test -p vdpa-conformance --test docs` writes it anew. Clauses are those of virtio 1.4; statements that\n\
        the contract makes come last. What came of a statement is of all ring variants together, with effort *quick*;\n\
        `tests/conformance/tests/simulated.rs` holds the same devices to all of them in full.\n\n",
    );
    let results: Vec<BTreeMap<u16, String>> = reports
        .iter()
        .map(|report| {
            catalogue()
                .iter()
                .map(|s| (s.id, result(report, s.id)))
                .collect()
        })
        .collect();
    page.push_str("| statements |");
    for report in reports {
        write!(page, " `{}` |", report.target).unwrap();
    }
    writeln!(page, "\n|---{}|", "|---".repeat(reports.len())).unwrap();
    for word in ["passed", "failed", "excepted", "skipped", "needs"] {
        let name = if word == "needs" {
            "out of reach"
        } else {
            word
        };
        write!(page, "| {name} |").unwrap();
        for of in &results {
            let count = of
                .values()
                .filter(|result| result.starts_with(word))
                .count();
            write!(page, " {count} |").unwrap();
        }
        page.push('\n');
    }
    page.push_str("\n| clause | statement |");
    for report in reports {
        write!(page, " `{}` |", report.target).unwrap();
    }
    writeln!(page, "\n|---|---{}|", "|---".repeat(reports.len())).unwrap();
    let mut statements: Vec<_> = catalogue().iter().collect();
    statements.sort_by_key(|statement| (place(statement.clause), statement.id));
    for Statement {
        id,
        kind,
        clause,
        text,
        ..
    } in statements
    {
        let (kind, text) = (kind.letter(), cell(text));
        write!(page, "| {clause} | {id} {kind}: {text} |").unwrap();
        for of in &results {
            write!(page, " {} |", cell(&of[id])).unwrap();
        }
        page.push('\n');
    }
    page
}

#[test]
fn the_coverage_is_what_came_of_it() {
    let selection = Selection::all(Effort::Quick);
    let reports: Vec<_> = std::thread::scope(|scope| {
        let judged = JUDGED.map(|spec| {
            let target = target(spec);
            let selection = &selection;
            scope.spawn(move || vdpa_conformance::run(&target, selection))
        });
        judged.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for report in &reports {
        assert_eq!(report.failed() + report.excepted(), 0, "{report}");
    }
    keep("docs/spec-coverage.md", &coverage(&reports));
}
