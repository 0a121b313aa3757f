//! The README says what is: its keys and its command lines. Its table of capabilities is written by
//! `tests/conformance/tests/docs.rs`.
#![cfg(feature = "sim")]

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    std::fs::read_to_string(path).expect("README.md is there")
}

/// The cells of the rows of a markdown table, header first, of the table whose header begins with `first`.
fn table(text: &str, first: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner.split('|').map(|c| c.trim().to_owned()).collect()
    };
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {first} ")));
    let rows: Vec<_> = lines
        .take_while(|line| line.starts_with('|'))
        .filter(|line| !line.starts_with("|---"))
        .map(cells)
        .collect();
    assert!(
        rows.len() > 1,
        "README.md has a table that begins with '{first}'"
    );
    rows
}

#[test]
fn device_strings_of_the_readme_open() {
    let text = readme();
    let mut opened = 0;
    for line in text.lines().filter(|line| line.starts_with("vdpactl ")) {
        if let Some(spec) = line
            .split_whitespace()
            .find(|word| word.starts_with("sim:"))
        {
            vdpa::open(spec).expect(spec);
            opened += 1;
        }
    }
    assert!(opened >= 3, "README.md shows {opened} device strings");
}

#[test]
fn keys_of_the_readme_are_those_of_the_devices() {
    let registry = vdpa::registry();
    let parent = registry.parent("sim").expect("sim is compiled in");
    for what in ["net", "blk"] {
        let mut rows = table(&readme(), &format!("`sim:{what}` key")).split_off(1);
        rows.extend(table(&readme(), "any `sim:` key").split_off(1));
        let class = parent.classes().iter().find(|class| class.what == what);
        let mut keys: Vec<_> = class.unwrap().keys.iter().map(|key| key.name).collect();
        // A row may have several keys.
        let cells = rows.iter().flat_map(|row| row[0].split(", "));
        let mut told: Vec<_> = cells.map(|cell| cell.trim_matches('`')).collect();
        keys.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, keys, "sim:{what}");
    }
}
