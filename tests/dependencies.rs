//! What the project is built from: where crates come from, their licences, and the compiler they need.
//!
//! Crates that only tests use are not judged: they are not shipped.

use std::collections::BTreeSet;

use cargo_metadata::{
    CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, semver::Version,
};

/// Licences that go with `Apache-2.0 OR BSD-3-Clause`.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .features(CargoOpt::AllFeatures)
        .other_options(vec![
            "--filter-platform".into(),
            format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .exec()
        .expect("cargo metadata describes the workspace")
}

/// Every package that a member of the workspace is built from, members included.
fn shipped(metadata: &Metadata) -> Vec<&Package> {
    let nodes = &metadata
        .resolve
        .as_ref()
        .expect("metadata holds the resolved graph")
        .nodes;
    let mut found: BTreeSet<_> = metadata.workspace_members.iter().collect();
    let mut open: Vec<_> = found.iter().copied().collect();
    while let Some(id) = open.pop() {
        for dependency in nodes
            .iter()
            .filter(|node| node.id == *id)
            .flat_map(|node| &node.deps)
        {
            let shipped = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind != DependencyKind::Development);
            if shipped && found.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    found.into_iter().map(|id| &metadata[id]).collect()
}

/// Whether an SPDX expression can be met by [`LICENCES`]: each side of every AND by one choice of its OR.
fn may_ship(expression: &str) -> bool {
    // Old manifests write "MIT/Apache-2.0". Brackets in use group an OR inside an AND.
    let plain = expression.replace('/', " OR ");
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for word in plain
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
    {
        match word {
            "(" => depth += 1,
            ")" => depth -= 1,
            "AND" if depth == 0 => parts.push(String::new()),
            word => {
                let part = parts.last_mut().expect("there is a first part");
                part.push_str(word);
                part.push(' ');
            }
        }
    }
    let known = |choice: &str| {
        choice
            .split(" AND ")
            .all(|one| LICENCES.contains(&one.trim()))
    };
    if expression.contains('(') {
        parts.iter().all(|part| part.split(" OR ").any(known))
    } else {
        // Without brackets AND binds closer than OR.
        plain.split(" OR ").any(known)
    }
}

#[test]
fn no_dependency_needs_a_newer_compiler() {
    let metadata = metadata();
    let stated = metadata
        .workspace_packages()
        .iter()
        .map(|package| {
            package
                .rust_version
                .clone()
                .expect("each member states rust-version")
        })
        .collect::<BTreeSet<Version>>();
    assert_eq!(
        stated.len(),
        1,
        "one rust-version for the workspace: {stated:?}"
    );
    let ours = stated.first().expect("there is one");
    for package in shipped(&metadata) {
        if let Some(theirs) = &package.rust_version {
            assert!(
                theirs <= ours,
                "{} {} needs Rust {theirs}",
                package.name,
                package.version
            );
        }
    }
}

#[test]
fn every_dependency_may_be_shipped_under_our_licence() {
    for package in shipped(&metadata()) {
        let licence = package.license.as_deref().unwrap_or("no licence stated");
        assert!(
            may_ship(licence),
            "{} {}: {licence}",
            package.name,
            package.version
        );
    }
}

#[test]
fn dependencies_come_from_the_registry() {
    let metadata = metadata();
    for package in &metadata.packages {
        let ours = metadata.workspace_members.contains(&package.id);
        let registry = package
            .source
            .as_ref()
            .is_some_and(|source| source.is_crates_io());
        assert!(
            ours || registry,
            "{} comes from {:?}",
            package.name,
            package.source
        );
    }
}

#[test]
fn licence_expressions_are_read() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-2.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        "MIT AND BSD-3-Clause",
    ] {
        assert!(may_ship(good), "{good}");
    }
    for bad in [
        "GPL-2.0-only",
        "MIT AND GPL-2.0-only",
        "(MIT OR Apache-2.0) AND GPL-3.0",
        "no licence stated",
        "",
    ] {
        assert!(!may_ship(bad), "{bad}");
    }
}
