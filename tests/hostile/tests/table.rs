//! The table by itself, and against `docs/hostile-inputs.md`.

use std::collections::BTreeSet;

use vdpa_hostile::table::{Place, ROWS, Row, count, sections};

const PAGE: &str = include_str!("../../../docs/hostile-inputs.md");

#[test]
fn every_number_from_1_to_155_stands_in_the_table_once_and_in_order() {
    let numbers: Vec<u16> = ROWS.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=155).collect::<Vec<_>>());
    assert!(ROWS.is_sorted_by_key(|row| match row.number {
        // These stand behind the others of their section by number alone.
        149.. => 'N',
        _ => format!("{:?}", row.section).chars().next().unwrap_or('Z'),
    }));
}

#[test]
fn names_are_unlike_one_another_and_every_row_runs_or_says_why_not() {
    let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ROWS.len());
    for row in ROWS {
        match row.place {
            Place::Here(_) => assert!(row.cases() > 0, "{row} runs nowhere"),
            Place::Later { why } => assert!(!why.is_empty(), "{row} says no reason"),
        }
    }
}

#[test]
fn legal_rows_are_those_that_have_to_succeed() {
    let legal: Vec<u16> = ROWS
        .iter()
        .filter(|row| row.legal)
        .map(|row| row.number)
        .collect();
    assert_eq!(legal, [6, 18, 19, 41, 44, 52, 57]);
}

#[test]
fn the_page_has_the_rows_of_the_table() {
    let lines = |text: &str| -> Vec<String> {
        let from = text.split_once("## A.").map_or("", |(_, rest)| rest);
        let upto = from.split_once("\n## Rules").map_or(from, |(upto, _)| upto);
        // All that stands there is the table's, and nothing else does.
        let wanted = |line: &&str| !line.is_empty();
        upto.lines().filter(wanted).map(str::to_owned).collect()
    };
    let (page, table) = (lines(PAGE), lines(&sections()));
    for (page, table) in page.iter().zip(&table) {
        assert_eq!(page, table, "docs/hostile-inputs.md");
    }
    assert_eq!(
        page.len(),
        table.len(),
        "docs/hostile-inputs.md should have:\n{}",
        sections()
    );
    assert!(
        PAGE.contains(&count()),
        "docs/hostile-inputs.md should say: {}",
        count()
    );
}

#[test]
fn rows_that_come_later_are_these_for_these_reasons() {
    let later: Vec<&Row> = ROWS
        .iter()
        .filter(|row| matches!(row.place, Place::Later { .. }))
        .collect();
    println!("{} rows come later:", later.len());
    for row in &later {
        println!("{}", row.line());
    }
    let numbers: Vec<u16> = later.iter().map(|row| row.number).collect();
    assert_eq!(numbers, [151]);
}
