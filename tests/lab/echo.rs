//! The host's own stack against `vdpactl echo` in a guest, through a tap with four queue pairs.

use crate::host::{self, ADDRESS_V4, ADDRESS_V6};
use crate::machine::Running;
use crate::{datagrams, ping, streams};

/// Source ports of the flows: with these every one of four pairs has some.
const FLOWS: u16 = 8;

/// The addresses of the guest's side, as `vdpactl echo` takes them.
pub(crate) const ADDRESSES: &str = "--ip 10.78.0.2/24 --ip fd78::2/64";

/// Everything that is sent comes back as it was, over every one of `pairs` pairs.
#[track_caller]
pub(crate) fn comes_back(guest: &mut Running, pairs: usize) {
    let ready = guest.object();
    assert_eq!(ready["event"], "ready", "{ready}");
    for size in [56, 1400] {
        ping::answers(ADDRESS_V4, size, 10);
    }
    ping::answers_in_fragments(ADDRESS_V4, 6000, 3);
    ping::answers(ADDRESS_V6, 1400, 10);
    ping::all_answered();
    streams::come_back(ADDRESS_V4, 20_000, FLOWS, 64 << 10);
    streams::come_back(ADDRESS_V6, 21_000, 1, 256 << 10);
    datagrams::come_back(ADDRESS_V4, 22_000, FLOWS, 60);
    datagrams::come_back_in_fragments(ADDRESS_V4, 5);
    host::no_wrong_checksums();

    guest.say("enough");
    let totals = guest.object();
    assert_eq!(totals["event"], "stopped", "{totals}");
    for nothing in ["malformed", "wrong_checksums"] {
        assert_eq!(totals[nothing], 0, "{totals}");
    }
    let used = totals["pairs"].as_array().unwrap();
    assert_eq!(used.len(), pairs, "{totals}");
    for (number, pair) in used.iter().enumerate() {
        for way in ["received", "sent"] {
            let frames = pair[way]["frames"].as_u64();
            assert!(
                frames > Some(0),
                "pair {number} has {way} nothing: {totals}"
            );
        }
    }
}
