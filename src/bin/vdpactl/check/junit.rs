//! The judgement as JUnit XML: a suite a chapter.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use vdpa_conformance::{Chapter, Outcome, Report, Row};

pub(super) fn render(report: &Report) -> Result<String, quick_junit::SerializeError> {
    let mut junit = quick_junit::Report::new(&report.target);
    junit.set_time(report.elapsed);
    for &chapter in Chapter::ALL {
        let of = |row: &&Row| row.statement.chapter == chapter;
        let mut suite = TestSuite::new(chapter.title());
        suite.add_test_cases(report.rows.iter().filter(of).map(case));
        // What counts as disabled in this crate's words is skipped in those of CI servers, which look for the attribute.
        let skipped = std::mem::take(&mut suite.disabled);
        suite
            .extra
            .insert("skipped".into(), skipped.to_string().into());
        if !suite.test_cases.is_empty() {
            junit.add_test_suite(suite);
        }
    }
    junit.to_string()
}

fn case(row: &Row) -> TestCase {
    let statement = row.statement;
    let status = match &row.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { seen } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(seen.as_str());
            status.set_type(statement.citation());
            status
        }
        Outcome::Skipped { reason } | Outcome::Excepted { reason, .. } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
    };
    let mut case = TestCase::new(format!("{} {}", statement.id, statement.text), status);
    case.set_classname(row.variant_name());
    case.set_time(row.elapsed);
    case
}
