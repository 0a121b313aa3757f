//! Has the C compiler say what expressions are.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use vdpa_uapi::table::{Row, Value};

use crate::sets::Headers;

/// What the headers have for a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    Number(i64),
    Text(String),
    /// It does not compile.
    Missing,
}

/// Asks for all rows, in their order.
///
/// `#ifdef` sees no enumerator and no structure. So each row is a line of its own, by which the compiler's errors name it;
/// rows with errors are taken out until all that is left compiles.
pub(crate) fn ask(rows: &[Row], headers: &Headers) -> Vec<Found> {
    let home = tempfile::tempdir().unwrap();
    let mut missing = BTreeSet::new();
    loop {
        let source = home.path().join("rows.c");
        std::fs::write(&source, program(rows, &missing, headers)).unwrap();
        let program = home.path().join("rows");
        let done = compile(headers, &["-o", program.to_str().unwrap()], &source);
        if done.status.success() {
            return answers(rows, &program);
        }
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        let before = missing.len();
        missing.extend(errors.lines().filter_map(row_in_error));
        assert!(missing.len() > before, "{headers}: {errors}");
    }
}

/// Runs the compiler with these headers before all others.
pub(crate) fn compile(headers: &Headers, arguments: &[&str], source: &Path) -> Output {
    let mut cc = Command::new("cc");
    if let Some(root) = &headers.root {
        let include = root.join("usr/include");
        let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
        cc.arg("-isystem").arg(&include);
        cc.arg("-isystem").arg(include.join(machine));
    }
    cc.args(["-std=gnu11", "-w", "-fno-diagnostics-color"])
        .args(arguments)
        .arg(source)
        .env("LC_ALL", "C")
        .output()
        .expect("a C compiler: apt-get install gcc libc6-dev")
}

fn program(rows: &[Row], missing: &BTreeSet<usize>, headers: &Headers) -> String {
    let mut text = String::from("#include <stddef.h>\n#include <stdio.h>\n");
    let wanted: BTreeSet<_> = rows.iter().map(|row| row.header).collect();
    for header in wanted {
        // Of two sets only the chosen one counts: what it has not, the system's may have.
        if there(headers, header) {
            writeln!(text, "#include <{header}>").unwrap();
        }
    }
    let mut body = String::new();
    for (number, row) in rows.iter().enumerate() {
        if missing.contains(&number) {
            continue;
        }
        let c = row.expression();
        let (ty, format, cast) = match row.value {
            Value::Number(_) => ("long long", "%lld", "(long long)"),
            Value::Text(_) => ("char *const", "%s", ""),
        };
        // A row has line `number + 1` of a file `row`.
        writeln!(
            text,
            "#line {} \"row\"\nstatic const {ty} row{number} = {cast}({c});",
            number + 1
        )
        .unwrap();
        writeln!(body, "  printf(\"{number} {format}\\n\", row{number});").unwrap();
    }
    write!(
        text,
        "#line 1 \"body\"\nint main(void) {{\n{body}  return 0;\n}}\n"
    )
    .unwrap();
    text
}

fn there(headers: &Headers, header: &str) -> bool {
    let usr = headers
        .root
        .as_ref()
        .map_or_else(|| Path::new("/usr").to_owned(), |root| root.join("usr"));
    usr.join("include").join(header).exists()
}

/// `row:12:34: error: ...` is row 11.
fn row_in_error(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("row:")?;
    let (number, rest) = rest.split_once(':')?;
    rest.contains("error:").then_some(())?;
    number.parse::<usize>().ok()?.checked_sub(1)
}

fn answers(rows: &[Row], program: &Path) -> Vec<Found> {
    let done = Command::new(program).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let mut found = vec![Found::Missing; rows.len()];
    for line in String::from_utf8(done.stdout).unwrap().lines() {
        let (number, value) = line.split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        found[number] = match rows[number].value {
            Value::Number(_) => Found::Number(value.parse().unwrap()),
            Value::Text(_) => Found::Text(value.to_owned()),
        };
    }
    found
}
