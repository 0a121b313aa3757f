//! The arrows between the crates, read from `cargo metadata`.
//!
//! Every package of the workspace stands in [`ROOMS`] with the packages it may name. Arrows point down:
//! a parent never names an end or another parent, and only what stands on top (the facade, the C binding)
//! names concrete parents. Dev-dependencies are free: a test may name anything.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// A package and the packages of this workspace that it may depend on.
struct Room {
    name: &'static str,
    below: &'static [&'static str],
}

const fn room(name: &'static str, below: &'static [&'static str]) -> Room {
    Room { name, below }
}

/// Rooms that are still to be built stand here too: where a crate belongs is decided before it is written.
const ROOMS: &[Room] = &[
    // Leaves.
    room("vdpa-mem", &[]),
    room("vdpa-uapi", &[]),
    room("vdpa-vhost-user", &[]),
    // The rings, the contract, virtio-pci at register level.
    room("vdpa-ring", &["vdpa-mem"]),
    room("vdpa-core", &["vdpa-mem", "vdpa-ring"]),
    room("vdpa-pci", &["vdpa-mem", "vdpa-core"]),
    // Parents. Arrows between them: a mediated device is opened by VFIO, and a slice is a simulated device.
    room(
        "vdpa-sim",
        &["vdpa-mem", "vdpa-ring", "vdpa-core", "vdpa-pci"],
    ),
    room(
        "vdpa-vfio",
        &[
            "vdpa-mem",
            "vdpa-ring",
            "vdpa-core",
            "vdpa-pci",
            "vdpa-uapi",
        ],
    ),
    room(
        "vdpa-mdev",
        &[
            "vdpa-mem",
            "vdpa-ring",
            "vdpa-core",
            "vdpa-pci",
            "vdpa-uapi",
            "vdpa-vfio",
            "vdpa-sim",
        ],
    ),
    room(
        "vdpa-vhost",
        &[
            "vdpa-mem",
            "vdpa-ring",
            "vdpa-core",
            "vdpa-uapi",
            "vdpa-vhost-user",
        ],
    ),
    // What stands around any parent's device.
    room("vdpa-layer", &["vdpa-mem", "vdpa-core"]),
    // Ends.
    room(
        "vdpa-export",
        &["vdpa-mem", "vdpa-core", "vdpa-uapi", "vdpa-vhost-user"],
    ),
    room("vdpa-socket", &["vdpa-mem", "vdpa-core"]),
    // The judge is a library that third parties run over parents of their own.
    room(
        "vdpa-conformance",
        &["vdpa-mem", "vdpa-ring", "vdpa-core", "vdpa-pci"],
    ),
    // What names concrete parents and ends.
    room(
        "vdpa",
        &[
            "vdpa-mem",
            "vdpa-ring",
            "vdpa-core",
            "vdpa-pci",
            "vdpa-layer",
            "vdpa-sim",
            "vdpa-vfio",
            "vdpa-mdev",
            "vdpa-vhost",
            "vdpa-export",
            "vdpa-conformance",
        ],
    ),
    room("vdpa-c", &["vdpa"]),
    // What stands against all of them, and is not shipped.
    room(
        "vdpa-hostile",
        &[
            "vdpa-mem",
            "vdpa-ring",
            "vdpa-core",
            "vdpa-pci",
            "vdpa-layer",
            "vdpa-sim",
            "vdpa-vhost",
            "vdpa-export",
            "vdpa-vhost-user",
            "vdpa",
        ],
    ),
];

/// The arrows between parents: VFIO's room, and the devices that slices are.
const ROOMS_OF_MDEV: &[&str] = &["vdpa-vfio", "vdpa-sim"];

/// Crates of the outside world that have one room; the contract and what lies below know nothing of them.
const OUTSIDE: &[&str] = &["vfio", "iommufd", "vhost", "kvm", "vduse", "netlink"];

/// Who names whom inside the workspace, dev-dependencies aside.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Everything that is wrong with the arrows, one sentence each.
fn faults(arrows: &Arrows) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, targets) in arrows {
        let Some(room) = ROOMS.iter().find(|room| room.name == from) else {
            faults.push(format!(
                "{from} has no room: add it to ROOMS in tests/layering.rs with the crates it may name"
            ));
            continue;
        };
        for to in targets {
            if !room.below.contains(&to.as_str()) {
                faults.push(format!(
                    "{from} must not depend on {to}; it may on {:?}",
                    room.below
                ));
            }
        }
    }
    faults
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .features(cargo_metadata::CargoOpt::AllFeatures)
        .other_options(vec!["--filter-platform".into(), host()])
        .exec()
        .expect("cargo metadata describes the workspace")
}

/// Crates of other platforms are not read, so that nothing is fetched for them.
fn host() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn arrows(metadata: &Metadata) -> Arrows {
    let packages = metadata.workspace_packages();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    packages
        .iter()
        .map(|package| {
            let named = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .filter(|dependency| ours.contains(dependency.name.as_str()))
                .map(|dependency| dependency.name.clone())
                .collect();
            (package.name.to_string(), named)
        })
        .collect()
}

/// The names of all packages that `root` is built from, itself aside.
fn closure(metadata: &Metadata, root: &str) -> BTreeSet<String> {
    let nodes = &metadata
        .resolve
        .as_ref()
        .expect("metadata holds the resolved graph")
        .nodes;
    let name = |id| metadata[id].name.to_string();
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = nodes.iter().filter(|node| name(&node.id) == root).collect();
    assert_eq!(open.len(), 1, "one package is called {root}");
    while let Some(node) = open.pop() {
        for dependency in &node.deps {
            let shipped = dependency
                .dep_kinds
                .iter()
                .any(|kind| kind.kind != DependencyKind::Development);
            if shipped && found.insert(name(&dependency.pkg)) {
                open.extend(nodes.iter().filter(|node| node.id == dependency.pkg));
            }
        }
    }
    found
}

#[test]
fn arrows_point_down() {
    let faults = faults(&arrows(&metadata()));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_itself_has_no_cycle() {
    // A room may name only rooms that stand above it in the table.
    for (at, room) in ROOMS.iter().enumerate() {
        for below in room.below {
            let place = ROOMS.iter().position(|other| other.name == *below);
            assert!(
                place.is_some_and(|place| place < at),
                "{} names {below}, which does not stand before it",
                room.name
            );
        }
    }
}

#[test]
fn no_parent_names_another_parent_or_an_end() {
    let parents = ["vdpa-sim", "vdpa-vfio", "vdpa-mdev", "vdpa-vhost"];
    let ends = ["vdpa-export", "vdpa-socket"];
    for room in ROOMS.iter().filter(|room| parents.contains(&room.name)) {
        for below in room.below {
            let drawn = ROOMS_OF_MDEV.contains(below) && room.name == "vdpa-mdev";
            assert!(!ends.contains(below), "{} names the end {below}", room.name);
            assert!(
                !parents.contains(below) || drawn,
                "{} names the parent {below}",
                room.name
            );
        }
    }
    for room in ROOMS.iter().filter(|room| ends.contains(&room.name)) {
        let parent = room.below.iter().find(|below| parents.contains(below));
        assert_eq!(parent, None, "{} names a parent", room.name);
    }
}

#[test]
fn the_contract_knows_no_outside_world() {
    let metadata = metadata();
    for root in ["vdpa-mem", "vdpa-ring", "vdpa-core"] {
        for name in closure(&metadata, root) {
            let outside = OUTSIDE.iter().find(|prefix| name.starts_with(**prefix));
            assert_eq!(outside, None, "{root} is built from {name}");
        }
    }
}

#[test]
fn there_is_one_vm_memory() {
    // Guest memory of two versions would be two types that can't be handed to one another.
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock"))
        .expect("Cargo.lock stands beside the root manifest");
    for name in ["vm-memory", "vmm-sys-util"] {
        let entry = format!("name = \"{name}\"");
        let count = lock.lines().filter(|line| *line == entry).count();
        assert!(count <= 1, "{count} versions of {name} in Cargo.lock");
    }
    assert!(
        lock.contains("name = \"vm-memory\""),
        "vm-memory is in Cargo.lock"
    );
}

/// The kernel module of the lab is under the kernel's license, and nobody who uses a crate gets it along.
#[test]
fn no_package_has_a_file_of_the_kernels_license() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_gpl = |path: &str| {
        let text = std::fs::read(root.join(path)).unwrap_or_default();
        let head = String::from_utf8_lossy(text.get(..200).unwrap_or(&text)).into_owned();
        head.contains("SPDX-License-Identifier: GPL") || head.contains("GNU GENERAL PUBLIC LICENSE")
    };
    for path in ["tests/lab/vmdev/main.c", "LICENSES/GPL-2.0-only.txt"] {
        assert!(is_gpl(path), "{path} is found by what it says");
    }
    // The other packages are directories without it.
    let listed = std::process::Command::new(env!("CARGO"))
        .args([
            "package",
            "--list",
            "--allow-dirty",
            "--offline",
            "-p",
            "vdpa",
        ])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|path| path == "src/lib.rs"), "{listed}");
    let packed: Vec<_> = listed.lines().filter(|path| is_gpl(path)).collect();
    assert_eq!(packed, [""; 0], "`exclude` in Cargo.toml names them");
}

mod checker {
    use super::*;

    fn graph(arrows: &[(&str, &[&str])]) -> Arrows {
        arrows
            .iter()
            .map(|(from, to)| {
                (
                    from.to_string(),
                    to.iter().map(|to| to.to_string()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn accepts_arrows_that_point_down() {
        let good = graph(&[
            ("vdpa-mem", &[]),
            ("vdpa-ring", &["vdpa-mem"]),
            ("vdpa-mdev", &["vdpa-vfio", "vdpa-core"]),
            ("vdpa", &["vdpa-sim", "vdpa-core"]),
        ]);
        assert_eq!(faults(&good), Vec::<String>::new());
    }

    #[test]
    fn catches_an_arrow_that_points_up() {
        let faults = faults(&graph(&[("vdpa-mem", &["vdpa-ring"])]));
        assert_eq!(
            faults,
            ["vdpa-mem must not depend on vdpa-ring; it may on []"]
        );
    }

    #[test]
    fn catches_a_contract_that_names_a_parent() {
        assert_eq!(
            faults(&graph(&[("vdpa-core", &["vdpa-mem", "vdpa-sim"])])).len(),
            1
        );
    }

    #[test]
    fn catches_a_parent_that_names_a_parent_or_an_end() {
        assert_eq!(
            faults(&graph(&[("vdpa-sim", &["vdpa-vfio", "vdpa-export"])])).len(),
            2
        );
    }

    #[test]
    fn asks_for_a_room_for_a_new_crate() {
        let faults = faults(&graph(&[("vdpa-new", &[])]));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("add it to ROOMS"), "{faults:?}");
    }

    #[test]
    fn reads_arrows_and_closure_from_the_real_workspace() {
        let metadata = metadata();
        let arrows = arrows(&metadata);
        assert!(arrows["vdpa-core"].contains("vdpa-ring"), "{arrows:?}");
        // Through vdpa-core only: the walk goes further than one step.
        assert!(closure(&metadata, "vdpa-core").contains("libc"));
    }
}
