//! The ring modes of DPDK's driver, and how it says which of them it is in.

/// How a virtio-user port is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) packed: bool,
    pub(crate) mergeable: bool,
    pub(crate) in_order: bool,
    pub(crate) vectorised: bool,
    /// The paths that it says it takes, by the words in its log.
    pub(crate) receive: &'static str,
    pub(crate) transmit: &'static str,
}

const fn mode(
    [packed, mergeable, in_order, vectorised]: [bool; 4],
    receive: &'static str,
    transmit: &'static str,
) -> Mode {
    Mode {
        packed,
        mergeable,
        in_order,
        vectorised,
        receive,
        transmit,
    }
}

const YES: bool = true;
const NO: bool = false;

pub(crate) const SPLIT: Mode = mode([NO, NO, NO, NO], "standard Rx", "standard Tx");
pub(crate) const SPLIT_MERGEABLE: Mode =
    mode([NO, YES, NO, NO], "mergeable buffer Rx", "standard Tx");
pub(crate) const SPLIT_IN_ORDER: Mode = mode([NO, NO, YES, NO], "inorder Rx", "inorder Tx");
pub(crate) const SPLIT_IN_ORDER_MERGEABLE: Mode =
    mode([NO, YES, YES, NO], "inorder Rx", "inorder Tx");
pub(crate) const SPLIT_VECTORISED: Mode = mode([NO, NO, NO, YES], "vectorized Rx", "standard Tx");
pub(crate) const PACKED: Mode = mode(
    [YES, NO, NO, NO],
    "packed ring standard Rx",
    "packed ring standard Tx",
);
pub(crate) const PACKED_MERGEABLE: Mode = mode(
    [YES, YES, NO, NO],
    "packed ring mergeable buffer Rx",
    "packed ring standard Tx",
);
pub(crate) const PACKED_IN_ORDER: Mode = mode(
    [YES, NO, YES, NO],
    "packed ring standard Rx",
    "packed ring standard Tx",
);
pub(crate) const PACKED_IN_ORDER_MERGEABLE: Mode = mode(
    [YES, YES, YES, NO],
    "packed ring mergeable buffer Rx",
    "packed ring standard Tx",
);
/// Wants AVX-512.
pub(crate) const PACKED_VECTORISED: Mode = mode(
    [YES, NO, YES, YES],
    "packed ring vectorized Rx",
    "packed ring vectorized Tx",
);
/// The same; only what it sends is.
pub(crate) const PACKED_VECTORISED_MERGEABLE: Mode = mode(
    [YES, YES, YES, YES],
    "packed ring mergeable buffer Rx",
    "packed ring vectorized Tx",
);

/// Bits of features, virtio 1.4 §6 and §5.1.3.
const MRG_RXBUF: u32 = 15;
const RING_PACKED: u32 = 34;
const IN_ORDER: u32 = 35;

impl Mode {
    /// As the driver's options in a device string.
    pub(crate) fn options(self) -> String {
        let [packed, mergeable, in_order, vectorised] =
            [self.packed, self.mergeable, self.in_order, self.vectorised].map(u8::from);
        format!(
            "packed_vq={packed},mrg_rxbuf={mergeable},in_order={in_order},vectorized={vectorised}"
        )
    }

    /// The driver is in this mode on `port`, by the features agreed on and by the paths that it took.
    #[track_caller]
    pub(crate) fn is_taken(self, port: u16, log: &str) {
        for path in [self.receive, self.transmit] {
            let line = format!("virtio: using {path} path on port {port}");
            assert!(log.contains(&line), "{self:?}: no {line:?} in {log}");
        }
        let agreed = log
            .lines()
            .filter_map(|line| line.split_once("features after negotiate = "));
        let agreed: Vec<u64> = agreed
            .map(|(_, bits)| u64::from_str_radix(bits.trim().trim_start_matches("0x"), 16).unwrap())
            .collect();
        assert!(!agreed.is_empty(), "no features in {log}");
        for features in agreed {
            for (bit, on) in [
                (MRG_RXBUF, self.mergeable),
                (RING_PACKED, self.packed),
                (IN_ORDER, self.in_order),
            ] {
                assert_eq!(
                    features >> bit & 1 == 1,
                    on,
                    "{self:?}: bit {bit} of {features:#x}"
                );
            }
        }
    }
}
