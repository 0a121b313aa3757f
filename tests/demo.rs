//! The demonstration: what `cargo run` shows.
#![cfg(feature = "cli")]

mod vdpactl;

use vdpactl::{keys, run};

#[test]
fn it_fits_a_screen_and_all_is_well() {
    let run = run([] as [&str; 0]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.stderr, "");
    assert!(run.stdout.lines().count() <= 40, "{}", run.stdout);
    for line in run.stdout.lines() {
        assert!(line.chars().count() <= 100, "too long: {line}");
    }
    for word in [
        "RING_PACKED",
        "split",
        "packed",
        "491",
        "byte for byte",
        "pps",
        "All well.",
    ] {
        assert!(
            run.stdout.contains(word),
            "{word} is not in\n{}",
            run.stdout
        );
    }
    assert!(!run.stdout.contains('\u{1b}'), "{}", run.stdout);
}

#[test]
fn it_has_an_object() {
    let run = run(["demo", "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    let object = run.object();
    assert_eq!(
        keys(&object),
        [
            "bench", "devices", "features", "frames", "replay", "seconds"
        ]
    );
    assert_eq!(object["frames"], 491);
    for (at, ring) in ["split", "packed"].into_iter().enumerate() {
        let replay = &object["replay"][at];
        assert_eq!(replay["ring"], ring);
        assert_eq!(replay["sent"], 491);
        assert_eq!(replay["received"], 491);
        assert_eq!(replay["dropped"], serde_json::json!({}));
        let bench = &object["bench"][at];
        assert_eq!(bench["ring"], ring);
        assert!(bench["packets"].as_u64().unwrap() > 0);
        assert_eq!(bench["verified"], bench["packets"]);
    }
}
