//! By which hash the device tells packets apart, and to which queue pair it gives them, virtio 1.4 §5.1.9.5.7.

use vdpa_core::config::net::HashTypes;

use super::NetError;

/// Bytes of a hash key: what every device takes.
pub const HASH_KEY_BYTES: usize = 40;

/// What is hashed, and with which key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hashing {
    /// The kinds of packets that have a hash.
    pub types: HashTypes,
    /// The key of the Toeplitz hash.
    pub key: [u8; HASH_KEY_BYTES],
}

/// How received packets are spread over queue pairs: receive-side scaling.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spread {
    hashing: Hashing,
    table: Vec<u16>,
    rest: u16,
    pairs: u16,
}

impl Spread {
    /// The longest table: what every device takes.
    pub const MAX_TABLE: usize = 128;

    /// By `hashing`, over queue pairs 0 to `pairs` - 1.
    ///
    /// * `table`: the pair of each hash, by the hash's lowest bits: 1 to 128 entries, a power of two
    /// * `rest`: the pair of packets without a hash
    /// * `pairs`: how many pairs are in use, at least 1
    ///
    /// # Errors
    /// When the table is of another length, or an entry of it, or `rest`, is no pair in use.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.9.5.7.2.
    pub fn new(hashing: Hashing, table: Vec<u16>, rest: u16, pairs: u16) -> Result<Self, NetError> {
        let len = table.len();
        if !len.is_power_of_two() || len > Self::MAX_TABLE {
            return Err(NetError::SpreadTable { len });
        }
        if let Some(&pair) = table.iter().chain([&rest]).find(|pair| **pair >= pairs) {
            return Err(NetError::NoPair { pair, count: pairs });
        }
        Ok(Self {
            hashing,
            table,
            rest,
            pairs,
        })
    }

    /// The same share for each of `pairs` pairs, as far as 128 can be shared.
    ///
    /// # Errors
    /// With no pair.
    pub fn even(hashing: Hashing, pairs: u16) -> Result<Self, NetError> {
        let entries = Self::MAX_TABLE as u16;
        let table = (0..entries).map(|at| at % pairs.max(1)).collect();
        Self::new(hashing, table, 0, pairs)
    }

    /// As the device reads it.
    pub(super) fn encode(&self, mut put: impl FnMut(&[u8])) {
        // A power of two, at most 128.
        let mask = (self.table.len() as u16).wrapping_sub(1);
        put(&self.hashing.types.bits().to_le_bytes());
        put(&mask.to_le_bytes());
        put(&self.rest.to_le_bytes());
        for pair in &self.table {
            put(&pair.to_le_bytes());
        }
        put(&self.pairs.to_le_bytes());
        put(&[HASH_KEY_BYTES as u8]);
        put(&self.hashing.key);
    }
}

impl Hashing {
    /// As the device reads it.
    pub(super) fn encode(&self, mut put: impl FnMut(&[u8])) {
        put(&self.types.bits().to_le_bytes());
        put(&[0; 8]);
        put(&[HASH_KEY_BYTES as u8]);
        put(&self.key);
    }
}
