//! The judgement as TAP version 14.

use std::fmt::Write;

use vdpa_conformance::{Outcome, Report, Row};

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", report.rows.len());
    for (number, row) in (1..).zip(&report.rows) {
        line(&mut text, number, row);
    }
    text
}

fn line(text: &mut String, number: usize, row: &Row) {
    let statement = row.statement;
    let variant = match row.variant {
        Some(variant) => format!(" [{variant}]"),
        None => String::new(),
    };
    let name = escaped(&format!("{} {}{variant}", statement.id, statement.text));
    // Writing to a String does not fail.
    let _ = match &row.outcome {
        Outcome::Passed => writeln!(text, "ok {number} - {name}"),
        Outcome::Skipped { reason } => {
            writeln!(text, "ok {number} - {name} # SKIP {}", escaped(reason))
        }
        Outcome::Excepted { reason, .. } => {
            writeln!(text, "not ok {number} - {name} # TODO {}", escaped(reason))
        }
        Outcome::Failed { seen } => writeln!(
            text,
            "not ok {number} - {name}\n  ---\n  seen: {}\n  asks: {}\n  ...",
            quoted(seen),
            quoted(&statement.citation())
        ),
    };
}

/// `#` would begin a directive.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('#', "\\#")
        .replace(['\n', '\r'], " ")
}

/// A YAML string in quotes, which JSON's are too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_sign_begins_no_directive() {
        assert_eq!(escaped("a # SKIP\nb"), "a \\# SKIP b");
    }
}
