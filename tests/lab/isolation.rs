//! The IOMMU: what is not mapped is not reached, and the kernel tells of who tried.

use crate::transcript::Transcript;

/// What `guest dma` said, and the log of the kernel.
#[track_caller]
pub(crate) fn holds(transcript: &Transcript) {
    let dma = transcript.step("dma").well().json();
    for (what, reached) in [
        ("mapped", true),
        ("unmapped", false),
        ("outside", false),
        ("again", true),
    ] {
        assert_eq!(dma[what]["untouched"], !reached, "{what}: {dma}");
        if reached {
            assert_eq!(dma[what]["answered"], 0, "{what}: {dma}");
        }
    }
    let log = transcript.said("log");
    for what in ["unmapped", "outside"] {
        let at = dma[what]["at"].as_str().unwrap();
        let fault =
            |line: &&str| line.contains("DMAR") && line.contains(&format!("fault addr {at}"));
        assert!(
            log.lines().any(|line| fault(&line)),
            "no fault at {at} in:\n{log}"
        );
    }
    let other = |line: &&str| {
        line.contains("fault addr") && !line.contains("0x40000") && !line.contains("0x50000")
    };
    assert_eq!(
        log.lines().find(other),
        None,
        "a fault that nobody asked for"
    );
}
